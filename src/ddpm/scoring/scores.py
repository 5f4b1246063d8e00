"""Measure the Frechet distance of samples, its error, and the shares of classes.

Features are float32 of shape (N, D); the statistics are float64.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

ROUNDING = 1e-5  # of a feature's value; float32 rounds a sum by less
GROUPS = 10


class Estimate(NamedTuple):
    """A score, and its standard deviation over random sets of as many images; None: there are too few."""

    value: float | None
    deviation: float | None

    def row(self, name: str) -> dict[str, float | None]:
        """Return both by their keys."""
        return {name: self.value, f"{name}_deviation": self.deviation}


NONE = Estimate(None, None)


def mean_of(values: Tensor) -> Estimate:
    """Estimate a mean from values of independent images (N,)."""
    values = values.double()
    return Estimate(float(values.mean()), float(values.std(correction=0)) / len(values) ** 0.5)


def varies(features: Tensor) -> bool:
    """Tell whether features (N, D) differ by more than rounding; else distances between them mean nothing."""
    spread = features.amax(0) - features.amin(0)
    return bool((spread > ROUNDING * features.abs().amax(0)).any())


class _Features(nn.Module):
    """A feature module for torchmetrics that returns ready-made features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class FrechetDistance:
    """Frechet distance between Gaussians fitted to real and to other features (Heusel et al. 2017, arXiv:1706.08500).

    It is biased by both counts: compare equal counts only. It has no scale of its own: report it with the distance of
    real images.
    """

    def __init__(self, real: Tensor) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import

        features = _Features(real.shape[1])
        self._metric = FrechetInceptionDistance(features, reset_real_features=False, normalize=False)
        self._metric.set_dtype(torch.float64).to(real.device).update(real, real=True)

    def __call__(self, samples: Tensor) -> float:
        """Return the distance of features (M, D)."""
        self._metric.reset()
        self._metric.update(samples, real=False)
        return float(self._metric.compute())


def frechet_distance(real: Tensor, samples: Tensor) -> float:
    """Return the Frechet distance; see `FrechetDistance`."""
    return FrechetDistance(real)(samples)


def jackknife(statistic: Callable[[Tensor], float], features: Tensor) -> float:
    """Estimate the standard error of a statistic of features (N, D): how far other random sets of N features would be.

    Each of GROUPS equal parts is left out in turn (Tukey 1958; Efron and Tibshirani 1993, ch. 11). The features must be
    in random order. The Frechet distance of equal distributions has no slope; there the error is a little too large.
    """
    parts = features.tensor_split(min(GROUPS, len(features)))
    values = [statistic(torch.cat(parts[:i] + parts[i + 1 :])) for i in range(len(parts))]
    return (len(parts) - 1) ** 0.5 * statistics.pstdev(values)


def class_shares(labels: Tensor, classes: int) -> list[float]:
    """Return the share of each class among integer labels (N,)."""
    return (labels.bincount(minlength=classes).double() / len(labels)).tolist()
