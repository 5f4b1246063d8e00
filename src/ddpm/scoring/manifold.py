"""Quality and variety told apart: which samples lie among the real features, and which real features are reached.

Kynkaanniemi et al. 2019, "Improved precision and recall metric"; Naeem et al. 2020, "Reliable fidelity and diversity
metrics".

Features are of shape (N, D). A feature's neighbourhood is the ball around it that reaches its k-th nearest neighbour.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

NEIGHBOURS = 5
CHUNK = 1000


class ManifoldScores(NamedTuple):
    """Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797).

    precision: share of samples in some real neighbourhood. recall: share of real features in some sample's one.
    density: mean number of real neighbourhoods that a sample is in, over k; it can exceed 1. coverage: share of real
    neighbourhoods with a sample inside.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(real: Tensor, samples: Tensor, k: int = NEIGHBOURS) -> ManifoldScores:
    """All four of real features (N, D) and samples (M, D), in float64; compare equal counts only.

    Raises:
        ValueError: one of the sets has no k + 1 features.
    """
    if min(len(real), len(samples)) <= k:
        raise ValueError(f"neighbourhoods of {k} need at least {k + 1} features, not {min(len(real), len(samples))}")
    centre = real.double().mean(0)  # small numbers keep the digits of small distances
    real, samples = real.double() - centre, samples.double() - centre
    real_radius, sample_radius = _radii(real, k), _radii(samples, k)
    among_real, holds = [], []
    nearest = torch.full((len(real),), torch.inf, dtype=torch.float64)
    reached = torch.zeros(len(real), dtype=torch.bool)
    rows = zip(_squared_distances(samples, real), sample_radius.split(CHUNK), strict=True)
    for distances, radius in rows:
        inside = distances <= real_radius
        among_real.append(inside.any(1))
        holds.append(inside.sum(1))
        nearest = torch.minimum(nearest, distances.amin(0))
        reached |= (distances <= radius[:, None]).any(0)
    return ManifoldScores(
        precision=_mean(torch.cat(among_real)),
        recall=_mean(reached),
        density=_mean(torch.cat(holds)) / k,
        coverage=_mean(nearest <= real_radius),
    )


def _radii(features: Tensor, k: int) -> Tensor:
    """Squared distance of each feature to its k-th nearest among the others."""
    return torch.cat([rows.kthvalue(k + 1, dim=1).values for rows in _squared_distances(features, features)])


def _squared_distances(queries: Tensor, references: Tensor) -> Iterator[Tensor]:
    """Between every query and every reference, CHUNK queries at a time."""
    norms = references.square().sum(1)
    for rows in queries.split(CHUNK):
        yield (rows.square().sum(1, keepdim=True) + norms - 2 * rows @ references.T).clamp(min=0)


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
