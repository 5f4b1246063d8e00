"""Project images onto principal components of pixels: features that are not learned, and that select nothing."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.images.splits import to_float

COMPONENTS = 40  # they explain four fifths of MNIST's variance
MOST_IMAGES = 10_000  # that the components are computed from
TABLE = 47_040_000  # numbers in memory at once


class Components(NamedTuple):
    """A mean image (D,) and the directions (D, K) of largest variance."""

    mean: Tensor
    directions: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Project uint8 images (N, C, H, W) onto the directions; float32 (N, K)."""
        parts = images.split(_rows(images))
        return torch.cat([(to_float(part).flatten(1) - self.mean) @ self.directions for part in parts])


def principal_components(images: Tensor, count: int = COMPONENTS) -> Components:
    """Compute the first `count` principal components of uint8 images (N, C, H, W) in [-1, 1], or as many as there are.

    Uses the randomised algorithm 5.1 of Halko et al. 2011 (arXiv:0909.4061) with a fixed seed. Images have far more
    pixels than components are needed.
    """
    most = min(len(images), MOST_IMAGES, _rows(images))
    pixels = to_float(images[torch.arange(most) * len(images) // most]).flatten(1)  # evenly among all
    mean = pixels.mean(0)
    pixels -= mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rank = min(count, *pixels.shape)
        _, _, directions = torch.pca_lowrank(pixels, q=min(2 * rank, *pixels.shape), center=False, niter=4)
    return Components(mean, directions[:, :rank])


def _rows(images: Tensor) -> int:
    """Return how many such images fit in memory at once as floats."""
    return max(1, TABLE // images[:1].numel())
