"""Candidates for a class: images that a model draws of it, and what a classifier takes them for."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.classifier.model import Classifier, features_and_logits
from ddpm.compute.device import Runtime
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import LoadedModel
from ddpm.sampling.drawing import batches, draw_batch, sample_batch
from ddpm.sampling.samplers import SamplerParams

SPAN = 1_000_000  # numbers of each class: the image j of the class `label` has the number label * SPAN + j


class Candidates(NamedTuple):
    """Drawn images of one class.

    images: uint8 (N, C, H, W). numbers: the index of each, by which its noise is found again (N,), int64.
    probability: of the class that was asked for (N,), float32. found: the most probable class (N,), int64.
    """

    images: Tensor
    numbers: Tensor
    probability: Tensor
    found: Tensor

    def taken(self, label: int, least: float = 0.0) -> Tensor:
        """Tell which of them the classifier takes for the class, and with at least that probability (N,)."""
        return (self.found == label) & (self.probability >= least)


def draw_class(
    loaded: LoadedModel,
    classifier: Classifier,
    params: SamplerParams,
    label: int,
    seed: int,
    first: int,
    count: int,
    runtime: Runtime,
    after_step: Callable[[int], None] = lambda images: None,
) -> Candidates:
    """Draw `count` images of a class, from `first` < SPAN on; image j of a class is that of (seed, j).

    Args:
        params: how to draw; their classes do not matter.
        after_step: called after each step of each batch with the number of its images.

    Raises:
        UserError: the model cannot draw the class, or not so, see `check_sampler`.
    """
    params = params.model_copy(update={"classes": (loaded.card.data.classes[label],)})
    drawn = []
    for numbers in batches(label * SPAN + first, count, sample_batch(loaded, runtime)):
        for step in draw_batch(loaded, params, seed, numbers, runtime):
            after_step(len(numbers))
        images = to_uint8(step.x_prev).cpu()
        _, logits = features_and_logits(classifier, images, runtime.device)
        probability = logits.softmax(1)[:, label]
        drawn.append(Candidates(images, torch.tensor([*numbers]), probability, logits.argmax(1)))
    return Candidates(*map(torch.cat, zip(*drawn, strict=True)))
