"""Find the classifiers that come with the package, so that everybody's distances of such images are on one scale.

A judge learned half of the training images; the other half is the reference of distances, less some images for the mix
of classes of all. The name of a file ends with
the first digits of its hash. It never changes: a new judge has a new name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.images.splits import SplitFile, hashed_places
from ddpm.processes.portable import PORTABLE
from ddpm.scores.classifier import load_classifier
from ddpm.scores.comparisons import MOST_COMPARED, counts_of, first_of_each

JUDGES = Path(__file__).parents[1] / "pretrained/judges"


class Judge(NamedTuple):
    """The file of a judge, the training images of the sampled classes for the reference (K,), and if these are all."""

    path: Path
    reference: Tensor
    all_classes: bool

    def scale(self, count: int, made_in: str) -> str:
        """Name the scale of scores; other counts, classes and precisions are other scales, and say so."""
        name, _, digits = self.path.stem.rpartition("-")
        other = [f"{count:,} images"] * (count != MOST_COMPARED) + ["some classes"] * (not self.all_classes)
        other += [f"DDPM_PRECISION={made_in}"] * (made_in != PORTABLE)
        return f"{name} ({digits})" + (f", another scale: {', '.join(other)}" if other else "")


def judge_of(train: SplitFile, classes: Sequence[int], folder: Path | None = None) -> Judge | None:
    """Return the newest judge that knows these training images, if there is one."""
    for path in sorted((folder or JUDGES).glob("*.safetensors"), reverse=True):
        if load_classifier(path).data.same_images(train.card):
            sampled = torch.isin(train.split.labels, torch.tensor([*classes]))
            return Judge(
                path, evened(train.split.labels, ~halves(train))[sampled], len(classes) == len(train.card.classes)
            )
    return None


def evened(labels: Tensor, among: Tensor) -> Tensor:
    """Choose most of the images of a mask (N,), with the mix of all labels (N,): one by chance adds a distance."""
    places = among.nonzero().squeeze(1)
    chosen = places[first_of_each(labels[places], counts_of(labels.bincount(), labels[places].bincount()))]
    return torch.zeros_like(among).index_fill(0, chosen, True)


def halves(train: SplitFile) -> Tensor:
    """Tell which training images a judge learns, (N,): about half, with near-duplicates on one side."""
    return hashed_places(train.split.images, "judge")[train.groups] >= 0.5
