"""Compare samples with real images, always at equal counts.

Training images are the reference. Samples and test images are compared with it and, as a real-vs-real baseline, other
training images: one set that is left out of the reference, or the sets of `among_real`. Subsets of real images are
random, because files are ordered and a prefix would be biased. Features have shape (N, D).

Errors of samples and test images are those of the sets, with this reference: it does not make them differ.
"""

import statistics
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.randomness import generator
from ddpm.processes.workers import map_shards
from ddpm.scores.distances import Estimate, FrechetDistance, frechet_distance, jackknife
from ddpm.scores.manifold import precision_and_recall

BASELINES = 20  # random sets of training images

Rows = dict[str, dict[str, float | None]]


class Draws(NamedTuple):
    """Random subsets as indices: a reference of training images (T,), a baseline of other ones, test images (N,)."""

    reference: Tensor
    baseline: Tensor
    test: Tensor


def draw_subsets(test: int, train: int, count: int, seed: int) -> Draws:
    """Choose random subsets of `count` images among `test` test images and `train` training images.

    The remaining training images are the reference.
    """
    order = torch.randperm(train, generator=generator(seed, "floor", 0))
    chosen = torch.randperm(test, generator=generator(seed, "test", 0))[:count]
    return Draws(order[count:], order[:count], chosen)


def compare(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Compute Frechet distances from the reference; there are as many samples as images in each subset."""
    distance = FrechetDistance(train[draws.reference])
    sets = {"samples": samples, "test": test[draws.test]}
    return {name: Estimate(distance(each), jackknife(distance, each)).row("frechet") for name, each in sets.items()}


def among_real(train: Tensor, count: int) -> Estimate:
    """Compute Frechet distances of BASELINES random sets, each beside the rest; return their mean and deviation.

    A single set may lie at half or at twice the mean: classes are far apart, so their mix counts, and it changes by
    chance.
    """
    orders = (torch.randperm(len(train), generator=generator(index, "baseline")) for index in range(BASELINES))
    found = [frechet_distance(train[order[count:]], train[order[:count]]) for order in orders]
    return Estimate(statistics.mean(found), statistics.stdev(found))


def variety(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Compute precision and recall; the reference is reduced to equal count."""
    sets = {"samples": samples, "test": test[draws.test], "baseline": train[draws.baseline]}
    real = train[draws.reference[: len(samples)]]
    found = map_shards(lambda name: precision_and_recall(real, sets[name]), [*sets])
    return {
        name: precision.row("precision") | recall.row("recall")
        for name, (precision, recall) in zip(sets, found, strict=True)
    }
