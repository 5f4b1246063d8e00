"""Measure the Frechet distance of samples, and errors of scores.

Features are float32 of shape (N, D); the statistics are float64.
"""

import hashlib
import statistics
from collections.abc import Callable
from functools import reduce
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 1e-5  # of a feature's value; float32 rounds a sum by less
GROUPS = 10


class Estimate(NamedTuple):
    """A score, and its standard error: how much random sets of as many images differ; None: it is not known."""

    value: float | None
    error: float | None

    def row(self, name: str) -> dict[str, float | None]:
        """Return both by their keys."""
        return {name: self.value, f"{name}_error": self.error}


NONE = Estimate(None, None)


def digest(image: Tensor) -> bytes:
    """Return a hash of an image that only equal ones have."""
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()


def share_of(flags: Tensor) -> Estimate:
    """Estimate a share from flags of independent images (N,).

    The error is that of N + 2 images, one more with the flag and one more without (Agresti and Caffo 2000). So it is
    not 0 for shares of 0 and 1, and the difference of two shares lies within two errors about as often as it should.
    """
    flags = flags.double()
    value, more = float(flags.mean()), (float(flags.sum()) + 1) / (len(flags) + 2)
    return Estimate(value, (more * (1 - more) / (len(flags) + 2)) ** 0.5)


def varies(features: Tensor) -> bool:
    """Tell whether features (N, D) differ by more than rounding; else distances between them mean nothing."""
    spread = features.amax(0) - features.amin(0)
    return bool((spread > ROUNDING * features.abs().amax(0)).any())


class Moments(NamedTuple):
    """How many features there are, their sum (D,), and the sum of their outer products (D, D), in float64."""

    size: int
    total: Tensor
    product: Tensor

    def without(self, other: "Moments") -> "Moments":
        """Return the moments without those of a part."""
        return Moments(self.size - other.size, self.total - other.total, self.product - other.product)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Return mean and covariance."""
        mean = self.total / self.size
        return mean, (self.product - self.size * mean.outer(mean)) / (self.size - 1)


def moments(features: Tensor) -> Moments:
    """Return the moments of features (N, D)."""
    features = features.double()
    return Moments(len(features), features.sum(0), features.T @ features)


class FrechetDistance:
    """Frechet distance between Gaussians fitted to real and to other features (Heusel et al. 2017, arXiv:1706.08500).

    It is biased by both counts: compare equal counts only. It has no scale of its own: report it with the distance of
    real images.
    """

    def __init__(self, real: Moments) -> None:
        self._mean, self._covariance = real.gaussian()
        values, vectors = torch.linalg.eigh(self._covariance)
        self._root = vectors * values.clamp(min=0).sqrt() @ vectors.T

    def __call__(self, samples: Moments) -> float:
        """Return the distance of features that have these moments."""
        mean, covariance = samples.gaussian()
        common = torch.linalg.eigvalsh(self._root @ covariance @ self._root).clamp(min=0).sqrt().sum()
        return float((self._mean - mean).square().sum() + (self._covariance + covariance).trace() - 2 * common)


def frechet_distance(real: Tensor, samples: Tensor) -> float:
    """Return the Frechet distance of features (N, D) and (M, D); see `FrechetDistance`."""
    return FrechetDistance(moments(real))(moments(samples))


def jackknife(statistic: Callable[[Moments], float], features: Tensor) -> float:
    """Estimate the standard error of a statistic of features (N, D): how far other random sets of N features would be.

    Each of GROUPS equal parts is left out in turn (Tukey 1958), and each two, because the Frechet distance of similar
    sets is curved: it has hardly a slope. Of what curves, leaving out one counts twice the variance; leaving out two
    shows how much that is (Efron and Stein 1981). The features must be in random order, or their classes spread evenly.
    """
    parts = [moments(part) for part in features.tensor_split(min(GROUPS, len(features)))]
    count, every = len(parts), moments(features)

    def without(*left_out: int) -> float:
        return statistic(reduce(Moments.without, [parts[index] for index in left_out], every))

    whole, one = without(), [without(index) for index in range(count)]
    two = [
        count * whole - (count - 1) * (one[i] + one[j]) + (count - 2) * without(i, j)
        for i, j in combinations(range(count), 2)
    ]
    variance = (count - 1) * statistics.pvariance(one)
    return max(variance - statistics.pvariance(two) / 2, variance / 2) ** 0.5
