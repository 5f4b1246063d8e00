"""Measures of sample quality on a classifier's features: numbers only.

Features are float32 of shape (N, D); the statistics are float64.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000


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


def class_shares(labels: Tensor, classes: int = 10) -> list[float]:
    """Share of each class among integer labels (N,)."""
    return (labels.bincount(minlength=classes).double() / len(labels)).tolist()


class Neighbours(NamedTuple):
    """For each query its nearest reference image: its index (N,), and root-mean-square pixel difference (N,)."""

    nearest: Tensor
    distance: Tensor


def nearest_neighbours(queries: Tensor, references: Tensor) -> Neighbours:
    """The nearest reference in pixel space, for images (N, C, H, W) in [-1, 1]."""
    flat, table = queries.flatten(1), references.flatten(1)
    norms = table.square().sum(1)
    index = torch.cat([(norms - 2 * part @ table.T).argmin(1) for part in flat.split(500)])
    return Neighbours(index, (flat - table[index]).square().mean(1).sqrt())
