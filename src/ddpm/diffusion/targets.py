"""Stable targets: the mean of the noise given x_t, over many images that may have become x_t, in place of one noise."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .denoiser import Prediction
from .unet import NO_LABEL


class References(NamedTuple):
    """Training images beside those of a batch, sorted by label.

    images: in [-1, 1], flat (K, C * H * W). squares: their squared norms, (K,). labels, ids: (K,); an image and its
    mirror image have different ids.
    """

    images: Tensor
    squares: Tensor
    labels: Tensor
    ids: Tensor

    def near(self, labels: Tensor) -> "References":
        """Return those from the least to the greatest label; all for NO_LABEL, and on GPUs, which had to wait."""
        if labels.device.type != "cpu" or (labels == NO_LABEL).any():
            return self
        ends = torch.stack([labels.min(), labels.max() + 1])
        first, end = torch.searchsorted(self.labels, ends).tolist()
        return References(*(each[first:end] for each in self))


@dataclass(frozen=True)
class StableTarget:
    """What to predict for images (B, C, H, W), with their labels and ids, (B,), among references."""

    x_start: Tensor
    labels: Tensor
    ids: Tensor
    references: References

    def __call__(self, predicted: Prediction, noise: Tensor, some: slice) -> Tensor:
        """Return the mean of the noise given x_t, (B, C, H, W), for some of the images."""
        x_t, signal, spread = predicted.x_t, predicted.signal, predicted.spread
        x_start, labels, ids = (each[some] for each in (self.x_start, self.labels, self.ids))
        start = stable_start(x_t, x_start, labels, ids, signal, spread, self.references.near(labels))
        return noise + signal / spread * (x_start - start)


def stable_start(
    x_t: Tensor, x_start: Tensor, labels: Tensor, ids: Tensor, signal: Tensor, spread: Tensor, references: References
) -> Tensor:
    """Return the mean of x_0 given x_t, (B, C, H, W), over x_start and the references of its class.

    This is the stable target field of Xu et al. 2023 (arXiv:2302.00670). Where noise is strong, many images may have
    become x_t: their mean is what the network has to learn, and x_start is a noisy sample of it. Where noise is weak,
    the mean is x_start. Without mirror images this target is unbiased: x_start is a random member of the set.

    Args:
        x_t: (B, C, H, W), noisy x_start.
        signal, spread: sqrt(abar) and sqrt(1 - abar) at each t, (B, 1, 1, 1).
        labels: (B,); NO_LABEL takes references of all classes. ids: (B,), so that no image counts twice.
    """
    x, start, signal, spread = (each.flatten(1) for each in (x_t, x_start, signal, spread))
    # The logarithm of N(x_t; signal x_0, spread^2 I) times spread^2, up to a constant of each x_t.
    of_start = signal * (x * start).sum(1, keepdim=True) - signal.square() * start.square().sum(1, keepdim=True) / 2
    of_references = signal * (x @ references.images.T) - signal.square() * references.squares / 2
    labels, itself = labels.view(-1, 1), ids[:, None] == references.ids
    of_references.masked_fill_(itself | (labels != NO_LABEL) & (labels != references.labels), -torch.inf)
    weights = (torch.cat([of_start, of_references], dim=1) / spread.square()).softmax(dim=1)
    return (weights[:, :1] * start + weights[:, 1:] @ references.images).view_as(x_t)
