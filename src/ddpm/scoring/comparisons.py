"""Compare samples with real images, always at equal counts.

Training images are the reference. Samples and test images are compared with it and, as a real-vs-real baseline, other
training images: one set that is left out of the reference, or the sets of `compare`. Subsets of real images are random,
because files are ordered and a prefix would be biased. Features have shape (N, D).

Errors of samples and test images are those of the sets, with this reference: it does not make them differ.
"""

import statistics
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.compute.workers import in_pieces
from ddpm.scoring.manifold import manifold, manifold_scores
from ddpm.scoring.scores import Estimate, FrechetDistance, frechet_distance, jackknife

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
    """Compute Frechet distances from the reference; there are as many samples as images in each subset.

    The baseline is the mean over BASELINES random sets, each beside the rest of the training images, and its error
    their deviation. A single set may lie at half or at twice the mean: classes are far apart, so their mix counts, and
    it changes by chance.
    """
    distance = FrechetDistance(train[draws.reference])
    found = {
        name: Estimate(distance(each), jackknife(distance, each))
        for name, each in (("samples", samples), ("test", test[draws.test]))
    }
    orders = (torch.randperm(len(train), generator=generator(index, "baseline")) for index in range(BASELINES))
    among_real = [frechet_distance(train[order[len(samples) :]], train[order[: len(samples)]]) for order in orders]
    found["baseline"] = Estimate(statistics.mean(among_real), statistics.stdev(among_real))
    return {name: each.row("frechet") for name, each in found.items()}


def variety(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Compute precision and recall; the reference is reduced to equal count."""
    sets = {"samples": samples, "test": test[draws.test], "baseline": train[draws.baseline]}
    features = [train[draws.reference[: len(samples)]], *sets.values()]
    real, *others = in_pieces(lambda place: manifold(features[place]), range(len(features)))
    found = in_pieces(lambda place: manifold_scores(real, others[place]), range(len(others)))
    return {
        name: each.precision.row("precision") | each.recall.row("recall")
        for name, each in zip(sets, found, strict=True)
    }
