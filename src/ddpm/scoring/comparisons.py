"""Samples beside real images, always at equal counts, and how much of what they differ by is chance.

Real images that stand for others are random subsets: no file of them is in random order, and its first are no sample.
Three sets are compared with training images, the reference: samples, test images, and, as the floor, training images
that are left out of the reference for it. Features are of shape (N, D).
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.scoring.manifold import ManifoldScores, manifold, manifold_scores
from ddpm.scoring.scores import FrechetDistance, KernelDistances, jackknife

DRAWS = 5

Rows = dict[str, dict[str, float | None]]


class Draws(NamedTuple):
    """Random subsets as indices: DRAWS references of training images (T,), each with a floor, the other ones (N,).

    test: as many of test images (N,); but one where N is more than half of them, for others would be nearly the same.
    """

    references: list[Tensor]
    floor: list[Tensor]
    test: list[Tensor]


def draw_subsets(test: int, train: int, count: int, seed: int) -> Draws:
    """Subsets of `count` of so many test images, and of so many training images, whose reference has the rest."""
    orders = [torch.randperm(train, generator=generator(seed, "floor", index)) for index in range(DRAWS)]
    subsets = DRAWS if 2 * count <= test else 1
    chosen = [torch.randperm(test, generator=generator(seed, "test", index))[:count] for index in range(subsets)]
    return Draws([order[count:] for order in orders], [order[:count] for order in orders], chosen)


def compare(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Frechet and kernel distances from the reference; the samples are as many as each subset.

    The Frechet distance is the mean over the draws. Its deviation is that over the subsets; where there is but one
    set, as of samples, and of test images when all are taken, no more than the reference would vary, and the jackknife
    tells instead how far another set of that size would be. The kernel distance is that of the first draw, with as many
    of its reference, and has an error of its own.
    """
    distances = [FrechetDistance(train[chosen]) for chosen in draws.references]
    kernel_distances = KernelDistances(train[draws.references[0][: len(samples)]])
    rows: Rows = {}
    for name, sets in _sets(samples, test, train, draws).items():
        values = [distance(sets[index % len(sets)]) for index, distance in enumerate(distances)]
        deviation = statistics.stdev(values) if len(sets) > 1 else jackknife(distances[0], sets[0])
        kid = kernel_distances(sets[0])
        rows[name] = {"frechet": statistics.fmean(values), "frechet_deviation": deviation, "frechet_over_floor": None}
        rows[name] |= {"kid": kid.distance, "kid_error": kid.error}
    if (floor := rows["floor"]["frechet"] or 0) > 0:  # rounding may leave less, which is no scale
        for row in rows.values():
            row["frechet_over_floor"] = (row["frechet"] or 0) / floor
    return rows


def variety(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> Rows:
    """Precision, recall, density and coverage, by as many images of each reference: the means over the draws.

    Deviations are those over the subsets, where there are several; that of the floor says what chance does to a set.
    """
    references = [manifold(train[chosen[: len(samples)]]) for chosen in draws.references]
    rows: Rows = {}
    for name, sets in _sets(samples, test, train, draws).items():
        manifolds = [manifold(each) for each in sets]
        found = [manifold_scores(each, manifolds[i % len(sets)]) for i, each in enumerate(references)]
        rows[name] = {}
        for field, values in zip(ManifoldScores._fields, zip(*found, strict=True), strict=True):
            rows[name][field] = statistics.fmean(values)
            if len(sets) > 1:
                rows[name][f"{field}_deviation"] = statistics.stdev(values)
    return rows


def _sets(samples: Tensor, test: Tensor, train: Tensor, draws: Draws) -> dict[str, Sequence[Tensor]]:
    return {
        "samples": [samples],
        "test": [test[chosen] for chosen in draws.test],
        "floor": [train[chosen] for chosen in draws.floor],
    }
