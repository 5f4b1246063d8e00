"""Sample candidates for a class, and classify them."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.classifier.model import Classifier, features_and_logits
from ddpm.compute.device import Runtime
from ddpm.model import LoadedModel
from ddpm.sample import SamplerParams, sample_images

SPAN = 1_000_000  # numbers for each class: image j of class `label` has the number label * SPAN + j


class Candidates(NamedTuple):
    """Samples of one class.

    images: uint8 (N, C, H, W). numbers: image numbers, which determine the noise (N,), int64. probability: of the
    requested class (N,), float32. found: the most probable class (N,), int64.
    """

    images: Tensor
    numbers: Tensor
    probability: Tensor
    found: Tensor

    def taken(self, label: int, least: float = 0.0) -> Tensor:
        """Tell which candidates are classified as the class, and with at least probability `least` (N,)."""
        return (self.found == label) & (self.probability >= least)


def sample_class(
    loaded: LoadedModel,
    classifier: Classifier,
    params: SamplerParams,
    label: int,
    seed: int,
    first: int,
    count: int,
    runtime: Runtime,
) -> Candidates:
    """Sample `count` images of a class, from number `first` < SPAN on; image j of a class depends only on (seed, j).

    Args:
        params: how to sample, `fitted` to the model; their classes are ignored.

    Raises:
        UserError: the model cannot sample the class.
    """
    params = params.model_copy(update={"classes": (loaded.card.data.classes[label],)})
    candidates = []
    begin = label * SPAN + first
    for numbers, images in sample_images(loaded, params, seed, range(begin, begin + count), runtime):
        _, logits = features_and_logits(classifier, images, runtime.device)
        probability = logits.softmax(1)[:, label]
        candidates.append(Candidates(images, torch.tensor([*numbers]), probability, logits.argmax(1)))
    return Candidates(*map(torch.cat, zip(*candidates, strict=True)))
