"""An imbalanced set of pictures of fruit, a model that samples them and a classifier that filters them, all tiny."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.balancing.filling import SPAN
from ddpm.diffusion.model import LoadedModel, load_model
from ddpm.diffusion.sets import sample_images
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, save_split
from ddpm.scores.classifier import Classifier, features_and_logits, save_classifier
from tests.cli.generating import sampler, tiny_model
from tests.small import CPU, FRUITS, randomised
from tests.stages.written import classifier_params

COUNTS = (30, 5, 12)  # apples, figs, pears
TESTED = (7, 6, 6)


class Files(NamedTuple):
    data: Path
    test: Path
    model: Path
    classifier: Path


def noise(count: int, seed: int) -> Tensor:
    """uint8 images (count, C, H, W), no two equal, and nearer to each other than to what a random model samples."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(118, 139, (count, *FRUITS.shape), generator=rng, dtype=torch.uint8)


def labels_of(counts: tuple[int, ...]) -> Tensor:
    """So many of each class, mixed."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]


def split(counts: tuple[int, ...], seed: int) -> Split:
    return Split(noise(sum(counts), seed), labels_of(counts))


def saved_split(path: Path, split: Split, card: DataCard = FRUITS) -> Path:
    groups = torch.arange(len(split.labels))
    save_split(path, card, split.labels, groups, (6,) * len(card.classes), [split.images])
    return path


def classifier(data: DataCard = FRUITS) -> Classifier:
    """One that has learned nothing, and takes all for the first class."""
    return randomised(Classifier(classifier_params(channels=1), data)).eval()


def halving(images: Tensor) -> Classifier:
    """One that takes half of these uint8 images (N, C, H, W) for figs, the others for pears, and none for apples.

    It goes by the feature in which they differ most.
    """
    judge = classifier()
    features, _ = features_and_logits(judge, images, CPU.device)
    spread, index = (features.amax(0) - features.amin(0)).max(0)
    middle = features[:, index].quantile(0.5)
    with torch.no_grad():
        judge.head.weight.zero_()
        judge.head.weight[1:, index] = torch.tensor([4, -4]) / spread
        judge.head.bias.copy_(torch.stack([torch.tensor(-9.0), -4 * middle / spread, 4 * middle / spread]))
    return judge


def forty_figs(loaded: LoadedModel) -> Tensor:
    """The first forty figs that are sampled with seed 0 and three steps."""
    params = sampler(steps=3, classes=["fig"])
    batches = sample_images(loaded, params, 0, range(SPAN, SPAN + 40), CPU)
    return torch.cat([batch for _, batch in batches])


def written(folder: Path, counts: tuple[int, ...] = COUNTS, tested: tuple[int, ...] = TESTED) -> Files:
    """The files of a set whose filter takes half of the first forty figs that are sampled, and no apple."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model(folder, data=FRUITS, counts=counts)
    save_classifier(folder / "classifier.safetensors", halving(forty_figs(load_model(model))))
    train, test = split(counts, 1), split(tested, 2)
    paths = [saved_split(folder / f"{name}.safetensors", each) for name, each in (("train", train), ("test", test))]
    return Files(paths[0], paths[1], model, folder / "classifier.safetensors")
