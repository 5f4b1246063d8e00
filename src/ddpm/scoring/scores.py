"""Measure the quality of samples: Frechet and kernel distance, and statistics of classes.

Features are float32 of shape (N, D); the statistics are float64.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

ROUNDING = 1e-5  # of a feature's value; float32 rounds a sum by less
GROUPS = 10
CHUNK = 100


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


class KernelDistance(NamedTuple):
    """A kernel distance and its standard error."""

    distance: float
    error: float


class KernelDistances:
    """Kernel distances, KID, of several sets from the same real features (N, D).

    The unbiased squared MMD, with kernel (x . y / D + 1)^3 (Binkowski et al. 2018, arXiv:1801.01401, eq. 4). The paper
    averages over random subsets, which estimates the same number from fewer pairs. The error of that mean only tells
    how exact it is for the given images. Here all pairs are taken, and the error tells how far other images would be.
    It is the error of a U-statistic, from what each feature adds (Sutherland et al. 2017, arXiv:1611.04488). For equal
    distributions, where only pairs add anything, it is up to 1.4 times too large.
    """

    def __init__(self, real: Tensor) -> None:
        self.real = real.double()
        self.within = _within(self.real)

    def __call__(self, samples: Tensor) -> KernelDistance:
        """Return the distance of features (M, D)."""
        samples = samples.double()
        of_real, of_samples = _between(self.real, samples)
        added = self.within - of_real, _within(samples) - of_samples
        error = 2 * sum(float(each.var()) / len(each) for each in added) ** 0.5
        return KernelDistance(sum(float(each.mean()) for each in added), error)


def _within(features: Tensor) -> Tensor:
    """Return the mean kernel of each feature with all others, (N,), computing half of the symmetric table."""
    sums = torch.zeros_like(features[:, 0])
    for rows in torch.arange(len(features)).split(CHUNK):
        first, end = int(rows[0]), int(rows[-1]) + 1
        table = _kernel(features[first:end], features[first:])
        table[:, : end - first].fill_diagonal_(0)
        sums[first:end] += table.sum(1)
        sums[end:] += table[:, end - first :].sum(0)
    return sums / (len(features) - 1)


def _between(features: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean kernel of each feature with the others, (N,), and of each other with the features, (M,)."""
    means, sums = [], torch.zeros_like(others[:, 0])
    for rows in features.split(CHUNK):
        table = _kernel(rows, others)
        means.append(table.mean(1))
        sums += table.sum(0)
    return torch.cat(means), sums / len(features)


def _kernel(features: Tensor, others: Tensor) -> Tensor:
    one = torch.ones((), dtype=features.dtype, device=features.device)
    return torch.addmm(one, features, others.T, alpha=1 / features.shape[1]).pow_(3)


def confident_share(logits: Tensor, threshold: float) -> float:
    """Return the share of images, logits (N, classes), with a class of at least probability `threshold`."""
    return float((logits.double().softmax(1).amax(1) >= threshold).double().mean())


def class_shares(labels: Tensor, classes: int) -> list[float]:
    """Return the share of each class among integer labels (N,)."""
    return (labels.bincount(minlength=classes).double() / len(labels)).tolist()


def class_imbalance(labels: Tensor, reference: Tensor) -> float:
    """Return the total variation distance between the class shares of two sets of labels: 0 to 1 (disjoint)."""
    classes = int(max(labels.max(), reference.max())) + 1
    pairs = zip(class_shares(labels, classes), class_shares(reference, classes), strict=True)
    return sum(abs(share - wanted) for share, wanted in pairs) / 2


def class_chi_square(labels: Tensor, reference: Tensor) -> tuple[float, float]:
    """Compute Pearson's chi-square of two sets of integer labels, (N,) and (M,), and its p-value.

    A small p-value says that the class distributions differ. It needs about five labels of each class that occurs.
    """
    width = int(max(labels.max(), reference.max())) + 1
    table = torch.stack([labels.bincount(minlength=width), reference.bincount(minlength=width)]).double()
    table = table[:, table.sum(0) > 0]
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    chi_square = ((table - expected).square() / expected).sum()
    half_freedom = torch.tensor((table.shape[1] - 1) / 2, dtype=torch.float64)
    p_value = torch.special.gammaincc(half_freedom, chi_square / 2) if half_freedom else torch.ones(())
    return float(chi_square), float(p_value)
