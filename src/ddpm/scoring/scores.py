"""Measures of sample quality: numbers only.

Features are float32 of shape (N, D); the statistics are float64.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm.data.labels import CLASSES

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
NEAR = 0.01


class _Features(nn.Module):
    """Lets torchmetrics take features that are already there, as its feature module."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, samples: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to both (Heusel et al. 2017, arXiv:1706.08500).

    It is biased by the counts: compare equal counts only. It has no scale of its own: publish it beside the distance of
    real images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import

    metric = FrechetInceptionDistance(_Features(real.shape[1]), normalize=False).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(samples, real=False)
    return float(metric.compute())


def kernel_distance(real: Tensor, samples: Tensor, seed: int) -> tuple[float, float]:
    """Kernel distance, KID, its mean and deviation over subsets (Binkowski et al. 2018, arXiv:1801.01401); unbiased."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(KID_SUBSET_SIZE, len(real), len(samples))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all extracted features")
        metric = KernelInceptionDistance(_Features(real.shape[1]), subsets=KID_SUBSETS, subset_size=size)
    metric.update(real.double(), real=True)
    metric.update(samples.double(), real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws the subsets from the global generator
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def confident_share(logits: Tensor, threshold: float) -> float:
    """Share of the images, logits (N, classes), whose most probable class has at least probability `threshold`."""
    return float((logits.double().softmax(1).amax(1) >= threshold).double().mean())


def class_shares(labels: Tensor, classes: int = CLASSES) -> list[float]:
    """Share of each class among integer labels (N,)."""
    return (labels.bincount(minlength=classes).double() / len(labels)).tolist()


def class_imbalance(labels: Tensor, reference: Tensor) -> float:
    """Total variation distance between the classes of two sets of integer labels: 0 to 1 (nothing in common)."""
    pairs = zip(class_shares(labels), class_shares(reference), strict=True)
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


class Neighbours(NamedTuple):
    """For each query its nearest reference: its index (N,), and root-mean-square difference (N,)."""

    nearest: Tensor
    distance: Tensor


def nearest_neighbours(queries: Tensor, references: Tensor) -> Neighbours:
    """The nearest reference of each query, for images (N, C, H, W) in [-1, 1] or features (N, D)."""
    flat, table = queries.flatten(1), references.flatten(1)
    norms = table.square().sum(1)
    index = torch.cat([(norms - 2 * part @ table.T).argmin(1) for part in flat.split(500)])
    return Neighbours(index, (flat - table[index]).square().mean(1).sqrt())


class Copying(NamedTuple):
    """Whether samples lie nearer to the training images than fresh real images do.

    z: the Mann-Whitney statistic of the two sets of distances, standard normal where they agree (Meehan et al. 2020,
    arXiv:2004.05675, with one cell). It is far below 0 where samples are nearer, as copies are, but smooth or average
    images as well; bad images push it up.
    near_copies: share of the samples that are nearer than all but NEAR of the fresh images; NEAR is expected.
    """

    z: float
    near_copies: float


def copying(samples: Tensor, fresh: Tensor) -> Copying:
    """Compare distances to the nearest training image, (N,) of samples and (M,) of real images not trained on."""
    samples, fresh = samples.double(), fresh.double().sort().values
    below, up_to = (torch.searchsorted(fresh, samples, right=right) for right in (False, True))
    wins = (below + up_to).double().sum() / 2  # pairs in which the sample is farther; a tie is half a win
    pairs = len(samples) * len(fresh)
    deviation = (pairs * (len(samples) + len(fresh) + 1) / 12) ** 0.5
    near = (samples < fresh.quantile(NEAR)).double().mean()
    return Copying(float(wins - pairs / 2) / deviation, float(near))
