"""Score quality and variety apart: which samples lie among the real features, and which real features are covered.

Kynkaanniemi et al. 2019, "Improved precision and recall metric".
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.scoring.scores import Estimate, share_of

NEIGHBOURS = 5
CHUNK = 100  # queries at a time: larger distance tables would be allocated each time


class Manifold(NamedTuple):
    """Features (N, D), each with its neighbourhood: the ball that reaches its k-th nearest other feature.

    radii: squared (N,). All values are float64, because distances of features far from zero lose digits in float32.
    """

    features: Tensor
    radii: Tensor


class ManifoldScores(NamedTuple):
    """Precision and recall (arXiv:1904.06991).

    precision: share of samples in some real neighbourhood. recall: share of real features in some sample's
    neighbourhood.
    """

    precision: Estimate
    recall: Estimate


def manifold(features: Tensor, k: int = NEIGHBOURS) -> Manifold:
    """Build the neighbourhoods of more than k features (N, D)."""
    features = features.double()
    rows = _squared_distances(features, features)
    radii = torch.cat([distances.topk(k + 1, largest=False).values[:, k] for distances in rows])  # the first is itself
    return Manifold(features, radii.clamp(min=0))


def manifold_scores(real: Manifold, samples: Manifold) -> ManifoldScores:
    """Compute both scores; compare equal counts only."""
    among_real = []
    reached = torch.zeros(len(real.radii), dtype=torch.uint8, device=real.radii.device)
    rows = zip(_squared_distances(samples.features, real.features), samples.radii.split(CHUNK), strict=True)
    for distances, radii in rows:
        # uint8 instead of bool: processors compare many at once.
        inside, reaches = ((distances <= each).view(torch.uint8) for each in (real.radii, radii[:, None]))
        among_real.append(inside.amax(1))
        reached |= reaches.amax(0)
    recall = float(reached.double().mean())  # its error is that of both sets: studies/scores found no cheap one
    return ManifoldScores(share_of(torch.cat(among_real)), Estimate(recall, None))


def _squared_distances(queries: Tensor, references: Tensor) -> Iterator[Tensor]:
    """Yield squared distances from CHUNK queries at a time to all references; rounding may make a 0 negative.

    Each block is a single product, |q|^2 - 2 q.r + |r|^2, because adding the squares to a table takes as long.
    """
    wide = torch.cat([references, *_one_and_square(references)], dim=1)
    for rows in queries.split(CHUNK):
        one, square = _one_and_square(rows)
        yield torch.cat([-2 * rows, square, one], dim=1) @ wide.T


def _one_and_square(features: Tensor) -> tuple[Tensor, Tensor]:
    square = features.square().sum(1, keepdim=True)
    return torch.ones_like(square), square
