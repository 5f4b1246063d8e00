"""Candidates for a class: images that a model draws of it, and what a classifier takes them for."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.classifier.model import Classifier, features_and_logits
from ddpm.compute.device import Runtime
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import LoadedModel
from ddpm.pipeline.console import UserError
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
        """Which of them the classifier takes for the class, and with at least that probability (N,)."""
        return (self.found == label) & (self.probability >= least)

    def joined(self, others: "Candidates") -> "Candidates":
        """These, and others behind them."""
        return Candidates(*(torch.cat(pair) for pair in zip(self, others, strict=True)))


def none_drawn(shape: tuple[int, int, int]) -> Candidates:
    """No candidates, to which others of this shape (C, H, W) can be joined."""
    numbers = torch.empty(0, dtype=torch.int64)
    return Candidates(torch.empty(0, *shape, dtype=torch.uint8), numbers, torch.empty(0), numbers.clone())


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
    """The images first, first + 1, ... of a class, `count` of them; image j of a class is that of (seed, j).

    Args:
        params: how to draw; their classes do not matter.
        after_step: called after each step of each batch with the number of its images; it may raise, to give up.

    Raises:
        UserError: the model cannot draw the class, or not so, see `check_sampler`; or `check_filter` refuses.
        ValueError: there are no such numbers.
    """
    if not 0 <= first <= first + count <= SPAN:
        raise ValueError(f"images {first} to {first + count - 1} of a class, which has {SPAN}")
    check_filter(classifier)
    params = params.model_copy(update={"classes": (loaded.card.data.classes[label],)})
    drawn = none_drawn(loaded.card.data.shape)
    for numbers in batches(label * SPAN + first, count, sample_batch(loaded, runtime)):
        for step in draw_batch(loaded, params, seed, numbers, runtime):
            after_step(len(numbers))
        images = to_uint8(step.x_prev).cpu()
        _, logits = features_and_logits(classifier, images, runtime.device)
        probability = logits.softmax(1)[:, label]
        drawn = drawn.joined(Candidates(images, torch.tensor([*numbers]), probability, logits.argmax(1)))
    return drawn


def check_filter(classifier: Classifier) -> None:
    """Refuse a classifier that tells no classes.

    Raises:
        UserError: it was trained on one class alone.
    """
    if not classifier.knows_classes:
        raise UserError("the classifier is of one class alone, and cannot tell whether an image shows it")
