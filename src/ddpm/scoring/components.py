"""Principal components of pixels: features that no network has learned, and by which nothing is chosen."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.images.pixels import to_float

COMPONENTS = 40  # of MNIST they hold four fifths of the variance
MOST_IMAGES = 10_000  # from which they are found
TABLE = 47_040_000  # numbers at once


class Components(NamedTuple):
    """The mean image (D,), and the directions (D, K) in which images vary most; both on one device."""

    mean: Tensor
    directions: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Where uint8 images (N, C, H, W) lie along each of them, float32 (N, K), on the components' device."""
        parts = (part.to(self.mean.device) for part in images.split(_rows(images)))
        return torch.cat([(to_float(part).flatten(1) - self.mean) @ self.directions for part in parts])


def principal_components(images: Tensor, count: int = COMPONENTS, seed: int = 0) -> Components:
    """The first `count` components, or as many as there are, of uint8 images (N, C, H, W), in [-1, 1].

    By the randomised method of Halko et al. 2011 (arXiv:0909.4061, algorithm 5.1), with a seed: images of any size have
    far more pixels than are needed.
    """
    most = min(len(images), MOST_IMAGES, _rows(images))
    pixels = to_float(images[torch.arange(most) * len(images) // most]).flatten(1)  # evenly among all
    mean = pixels.mean(0)
    pixels -= mean
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rank = min(count, *pixels.shape)
        _, _, directions = torch.pca_lowrank(pixels, q=min(2 * rank, *pixels.shape), center=False, niter=4)
    return Components(mean, directions[:, :rank])


def _rows(images: Tensor) -> int:
    """How many of these images are at most in memory as floats."""
    return max(1, TABLE // images[:1].numel())
