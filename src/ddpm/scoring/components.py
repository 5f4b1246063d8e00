"""Principal components of pixels: features that no network has learned, and no loss or choice has seen."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.data.images import to_float

COMPONENTS = 40  # of MNIST they hold four fifths of the variance
CHUNK = 5000


class Components(NamedTuple):
    """The mean image (D,), and the directions (D, K) in which images vary most."""

    mean: Tensor
    directions: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Where uint8 images (N, C, H, W) lie along each of them, float32 (N, K)."""
        return torch.cat([(to_float(part).flatten(1) - self.mean) @ self.directions for part in images.split(CHUNK)])


def principal_components(images: Tensor, count: int = COMPONENTS, seed: int = 0) -> Components:
    """The first `count` components, or as many as there are, of uint8 images (N, C, H, W), in [-1, 1].

    By the randomised method of Halko et al. 2011 (arXiv:0909.4061, algorithm 5.1), with a seed: images of any size have
    far more pixels than are needed.
    """
    pixels = to_float(images[_spread(len(images))]).flatten(1)
    mean = pixels.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rank = min(count, *pixels.shape)
        _, _, directions = torch.pca_lowrank(pixels - mean, q=min(2 * rank, *pixels.shape), center=False, niter=4)
    return Components(mean, directions[:, :rank])


def _spread(count: int, most: int = 10_000) -> Tensor:
    """The indices of at most so many, evenly among all."""
    return torch.arange(most) * count // most if count > most else torch.arange(count)
