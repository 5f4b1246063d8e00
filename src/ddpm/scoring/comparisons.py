"""Compare samples with real images, always at equal counts, and estimate how much of the difference is chance.

Training images are the reference. Three sets are compared with it: samples, test images, and a real-vs-real baseline,
which is training images left out of the reference. Subsets of real images are random, because files are ordered and a
prefix would be biased. Features have shape (N, D).
"""

import statistics
from collections.abc import Sequence
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.compute.workers import in_pieces
from ddpm.scoring.manifold import Manifold, ManifoldScores, manifold, manifold_scores
from ddpm.scoring.scores import Estimate, FrechetDistance, jackknife

DRAWS = 5

Rows = dict[str, dict[str, float | None]]


class Draws(NamedTuple):
    """Random subsets as indices: DRAWS references of training images (T,), each with a baseline of the other ones (N,).

    test: subsets of test images (N,), which may overlap. There is only one if N exceeds half of them.
    """

    references: list[Tensor]
    baseline: list[Tensor]
    test: list[Tensor]


def draw_subsets(test: int, train: int, count: int, seed: int) -> Draws:
    """Choose random subsets of `count` images among `test` test images and `train` training images.

    The remaining training images are the reference of each subset.
    """
    orders = [torch.randperm(train, generator=generator(seed, "floor", index)) for index in range(DRAWS)]
    subsets = DRAWS if 2 * count <= test else 1
    chosen = [torch.randperm(test, generator=generator(seed, "test", index))[:count] for index in range(subsets)]
    return Draws([order[count:] for order in orders], [order[:count] for order in orders], chosen)


def compare(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Compute Frechet distances from the reference; there are as many samples as images in each subset.

    A distance is the mean over the references. Its deviation is the standard deviation over the subsets; for a single
    set it is the jackknife estimate, since only the references would vary.
    """
    distances = [FrechetDistance(train[chosen]) for chosen in draws.references]
    rows: Rows = {}
    for name, sets in _sets(samples, test, train, draws).items():
        values = [distance(sets[index % len(sets)]) for index, distance in enumerate(distances)]
        deviation = statistics.stdev(values) if len(sets) > 1 else jackknife(distances[0], sets[0])
        rows[name] = Estimate(statistics.fmean(values), deviation).row("frechet")
    return rows


def variety(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Compute precision and recall as means over the references, each reduced to equal count."""
    references = [train[chosen[: len(samples)]] for chosen in draws.references]
    sets = _sets(samples, test, train, draws)
    every = [*references, *chain(*sets.values())]
    manifolds = iter([*in_pieces(lambda place: manifold(every[place]), range(len(every)))])
    real = [*islice(manifolds, len(references))]
    rows: Rows = {}
    for name, features in sets.items():
        own = [*islice(manifolds, len(features))]
        pairs = [(each, own[place % len(own)]) for place, each in enumerate(real)]
        found = in_pieces(partial(_scores, pairs), range(len(pairs)))
        rows[name] = {}
        for field, estimates in zip(ManifoldScores._fields, zip(*found, strict=True), strict=True):
            mean = Estimate(*(statistics.fmean(values) for values in zip(*estimates, strict=True)))
            rows[name] |= mean.row(field)
    return rows


def _scores(pairs: Sequence[tuple[Manifold, Manifold]], place: int) -> ManifoldScores:
    return manifold_scores(*pairs[place])


def _sets(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> dict[str, Sequence[Tensor]]:
    return {
        "samples": [samples],
        "test": [test[chosen] for chosen in draws.test],
        "baseline": [train[chosen] for chosen in draws.baseline],
    }
