"""Precision and recall on sets whose answers are known."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.scoring.manifold import ManifoldScores, manifold, manifold_scores


def gaussian(count: int, seed: int, width: int = 8) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def found_scores(real: Tensor, samples: Tensor, k: int = 5) -> ManifoldScores:
    return manifold_scores(manifold(real, k), manifold(samples, k))


def values(found: ManifoldScores) -> list[float | None]:
    return [each.value for each in found]


def plain(real: Tensor, samples: Tensor, k: int) -> tuple[float, float]:
    """The definitions, word by word."""
    real, samples = real.double(), samples.double()

    def radius(features: Tensor, index: int) -> float:
        return sorted(math.dist(features[index], other) for other in features)[k]  # the first is itself

    real_radius = [radius(real, i) for i in range(len(real))]
    sample_radius = [radius(samples, i) for i in range(len(samples))]
    inside = [[math.dist(s, r) <= real_radius[i] for i, r in enumerate(real)] for s in samples]
    reached = [any(math.dist(s, r) <= sample_radius[j] for j, s in enumerate(samples)) for r in real]
    return sum(map(any, inside)) / len(samples), sum(reached) / len(real)


@pytest.mark.parametrize(("k", "chunk"), [(1, 100), (5, 7)])
def test_scores_are_those_of_the_definitions(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm.scoring.manifold.CHUNK", chunk)
    real, samples = gaussian(40, 0, 3), 0.8 * gaussian(30, 1, 3) + 0.5
    expected = plain(real, samples, k)
    assert all(0 < value < 1 for value in expected)
    assert values(found_scores(real, samples, k)) == pytest.approx(expected, abs=1e-12)


def test_far_from_zero_the_scores_are_the_same() -> None:
    real, samples = gaussian(200, 0).double(), gaussian(200, 1).double() + 0.5
    far, near = found_scores(real + 1000, samples + 1000), found_scores(real, samples)
    assert values(far) == pytest.approx(values(near), abs=1e-12)
