"""Measures of sample quality: numbers only.

Features are float32 of shape (N, D); the statistics are float64.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

GROUPS = 10
CHUNK = 100


class _Features(nn.Module):
    """Lets torchmetrics take features that are already there, as its feature module."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class FrechetDistance:
    """Frechet distance of the Gaussians fitted to real features and to others (Heusel et al. 2017, arXiv:1706.08500).

    It is biased by both counts: compare equal counts only. It has no scale of its own: publish it beside the distance
    of real images.
    """

    def __init__(self, real: Tensor) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import

        features = _Features(real.shape[1])
        self._metric = FrechetInceptionDistance(features, reset_real_features=False, normalize=False)
        self._metric.set_dtype(torch.float64).to(real.device).update(real, real=True)

    def __call__(self, samples: Tensor) -> float:
        """Of features (M, D)."""
        self._metric.reset()
        self._metric.update(samples, real=False)
        return float(self._metric.compute())


def frechet_distance(real: Tensor, samples: Tensor) -> float:
    """See `FrechetDistance`."""
    return FrechetDistance(real)(samples)


def jackknife(statistic: Callable[[Tensor], float], features: Tensor) -> float:
    """Standard error of a statistic of features (N, D): how far from it those of other draws of N features would be.

    By leaving each of GROUPS equal parts out (Tukey 1958; Efron and Tibshirani 1993, ch. 11). The order of the features
    must be random. The Frechet distance of equal distributions has no slope; there the error is a little too large.
    """
    parts = features.tensor_split(min(GROUPS, len(features)))
    values = [statistic(torch.cat(parts[:i] + parts[i + 1 :])) for i in range(len(parts))]
    return (len(parts) - 1) ** 0.5 * statistics.pstdev(values)


class KernelDistance(NamedTuple):
    """Kernel distance, and its standard error."""

    distance: float
    error: float


def kernel_distance(real: Tensor, samples: Tensor) -> KernelDistance:
    """Kernel distance, KID: the unbiased squared MMD with the kernel (x . y / D + 1)^3 (Binkowski et al. 2018, eq. 4).

    arXiv:1801.01401 has its mean over random subsets, which estimates the same number from fewer pairs. Subsets
    overlap: their deviation is that of one, and that over the root of their number says how exact the mean is for these
    very images. Here all pairs are taken, and the error says how far other images would be: that of a U-statistic, from
    what each feature adds to it (Sutherland et al. 2017, arXiv:1611.04488). For equal distributions, where only pairs
    add anything, it is up to 1.4 times too large.
    """
    return KernelDistances(real)(samples)


class KernelDistances:
    """Kernel distances of several sets from the same real features (N, D), see `kernel_distance`."""

    def __init__(self, real: Tensor) -> None:
        self.real = real.double()
        self.within = _within(self.real)

    def __call__(self, samples: Tensor) -> KernelDistance:
        """Of features (M, D)."""
        samples = samples.double()
        of_real, of_samples = _between(self.real, samples)
        added = self.within - of_real, _within(samples) - of_samples
        error = 2 * sum(float(each.var()) / len(each) for each in added) ** 0.5
        return KernelDistance(sum(float(each.mean()) for each in added), error)


def _within(features: Tensor) -> Tensor:
    """Of each feature the mean of the kernel with all others, (N,); of the symmetric table one half is computed."""
    sums = torch.zeros_like(features[:, 0])
    for rows in torch.arange(len(features)).split(CHUNK):
        first, end = int(rows[0]), int(rows[-1]) + 1
        table = _kernel(features[first:end], features[first:])
        table[:, : end - first].fill_diagonal_(0)
        sums[first:end] += table.sum(1)
        sums[end:] += table[:, end - first :].sum(0)
    return sums / (len(features) - 1)


def _between(features: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the kernel: of each feature with the others, (N,), and of each of the others with the features, (M,)."""
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
    """Share of the images, logits (N, classes), whose most probable class has at least probability `threshold`."""
    return float((logits.double().softmax(1).amax(1) >= threshold).double().mean())


def class_shares(labels: Tensor, classes: int) -> list[float]:
    """Share of each class among integer labels (N,)."""
    return (labels.bincount(minlength=classes).double() / len(labels)).tolist()


def class_imbalance(labels: Tensor, reference: Tensor) -> float:
    """Total variation distance between the classes of two sets of integer labels: 0 to 1 (nothing in common)."""
    classes = int(max(labels.max(), reference.max())) + 1
    pairs = zip(class_shares(labels, classes), class_shares(reference, classes), strict=True)
    return sum(abs(share - wanted) for share, wanted in pairs) / 2


def class_chi_square(labels: Tensor, reference: Tensor) -> tuple[float, float]:
    """Pearson's chi-square of two sets of integer labels, (N,) and (M,), and its p-value.

    A small p-value says that no one distribution of classes gave both; it needs some five of each class that occurs.
    """
    width = int(max(labels.max(), reference.max())) + 1
    table = torch.stack([labels.bincount(minlength=width), reference.bincount(minlength=width)]).double()
    table = table[:, table.sum(0) > 0]
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    chi_square = ((table - expected).square() / expected).sum()
    half_freedom = torch.tensor((table.shape[1] - 1) / 2, dtype=torch.float64)
    p_value = torch.special.gammaincc(half_freedom, chi_square / 2) if half_freedom else torch.ones(())
    return float(chi_square), float(p_value)
