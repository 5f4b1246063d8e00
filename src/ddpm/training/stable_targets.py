"""Stable targets: the mean of the noise given x_t, over many images that may have become x_t, in place of one noise."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.randomness import distinct
from ddpm.images.splits import Split
from ddpm.training.params import TrainParams
from ddpm.unet import NO_LABEL


class Others(NamedTuple):
    """Training images beside those of a batch.

    images: in [-1, 1], flat (K, C * H * W). squares: their squared norms, (K,). labels, names: (K,), see `names_of`.
    """

    images: Tensor
    squares: Tensor
    labels: Tensor
    names: Tensor


def draw_others(images: Split, rows: Tensor, params: TrainParams, step: int, device: torch.device) -> Others:
    """Draw params.target_images of the images with these rows, the same in every process; half are mirrored if any is.

    Args:
        step: the number of the training step, which decides the draw.
    """
    drawn = distinct(params.target_images or 0, len(rows), params.seed, "target images", step)
    chosen = rows[drawn.to(rows.device)]
    mirrored = torch.arange(len(chosen), device=device) % 2 == 1 if params.flip else None
    split = in_orientation(images.batch(chosen, device), mirrored)
    flat = split.images.flatten(1).float().div_(127.5).sub_(1)  # to_float in place, several times faster
    return Others(flat, flat.square().sum(1), split.labels, names_of(chosen.to(device), mirrored))


def stable_start(
    x_t: Tensor, x_start: Tensor, labels: Tensor, names: Tensor, signal: Tensor, spread: Tensor, others: Others
) -> Tensor:
    """Return the mean of x_0 given x_t, (B, C, H, W), over x_start and the other images of its class.

    This is the stable target field of Xu et al. 2023 (arXiv:2302.00670). Where noise is strong, many images may have
    become x_t: their mean is what the network has to learn, and x_start is a noisy sample of it. Where noise is weak,
    the mean is x_start. Without mirror images this target is unbiased: x_start is a random member of the set.

    Args:
        x_t: (B, C, H, W), noisy x_start.
        signal, spread: sqrt(abar) and sqrt(1 - abar) at each t, (B, 1, 1, 1).
        labels: (B,); NO_LABEL takes others of all classes. names: (B,), so that no image counts twice.
    """
    x, own, signal, spread = (each.flatten(1) for each in (x_t, x_start, signal, spread))
    # The logarithm of N(x_t; signal x_0, spread^2 I) times spread^2, up to a constant of each x_t.
    of_own = signal * (x * own).sum(1, keepdim=True) - signal.square() * own.square().sum(1, keepdim=True) / 2
    of_others = signal * (x @ others.images.T) - signal.square() * others.squares / 2
    labels, itself = labels.view(-1, 1), names[:, None] == others.names
    of_others.masked_fill_(itself | (labels != NO_LABEL) & (labels != others.labels), -torch.inf)
    weights = (torch.cat([of_own, of_others], dim=1) / spread.square()).softmax(dim=1)
    return (weights[:, :1] * own + weights[:, 1:] @ others.images).view_as(x_t)


def names_of(rows: Tensor, mirrored: Tensor | None) -> Tensor:
    """Return a number for each training image and orientation, (B,): an image and its mirror image differ."""
    return 2 * rows if mirrored is None else 2 * rows + mirrored


def in_orientation(split: Split, mirrored: Tensor | None) -> Split:
    """Mirror images (B, C, H, W) left to right where `mirrored` (B,) is true."""
    if mirrored is None:
        return split
    return Split(torch.where(mirrored.view(-1, 1, 1, 1), split.images.flip(3), split.images), split.labels)
