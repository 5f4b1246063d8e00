"""Precision and recall on sets whose answers are known, and samples beside random subsets of real images."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.scores.comparisons import among_real, draw_subsets, variety
from ddpm.scores.distances import frechet_distance
from ddpm.scores.manifold import precision_and_recall
from tests.small import normal


def values(real: Tensor, samples: Tensor, k: int = 5) -> list[float | None]:
    return [each.value for each in precision_and_recall(real, samples, k)]


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
    monkeypatch.setattr("ddpm.scores.manifold.CHUNK", chunk)
    real, samples = normal(40, 3, seed=0), 0.8 * normal(30, 3, seed=1) + 0.5
    expected = plain(real, samples, k)
    assert all(0 < value < 1 for value in expected)
    assert values(real, samples, k) == pytest.approx(expected, abs=1e-12)


def test_far_from_zero_the_scores_are_the_same() -> None:
    real, samples = normal(200, 8, seed=0).double(), normal(200, 8, seed=1).double() + 0.5
    assert values(real + 1000, samples + 1000) == pytest.approx(values(real, samples), abs=1e-12)


def test_a_baseline_and_its_reference_are_all_training_images() -> None:
    draws = draw_subsets(test=50, train=100, count=20, seed=3)
    assert [len(each) for each in draws] == [80, 20, 20]
    assert sorted([*draws.reference.tolist(), *draws.baseline.tolist()]) == list(range(100))
    assert draws.baseline.tolist() != list(range(20))
    assert len(set(draws.test.tolist())) == 20
    assert 0 <= draws.test.min() <= draws.test.max() < 50
    torch.testing.assert_close(draw_subsets(50, 100, 20, 3), draws)
    assert not torch.equal(draw_subsets(50, 100, 20, 4).test, draws.test)


def test_narrow_samples_have_precision_but_no_recall() -> None:
    rows = variety(
        normal(60, 4, seed=0) / 3, normal(60, 4, seed=1), normal(300, 4, seed=2), draw_subsets(60, 300, 60, seed=0)
    )
    assert rows["samples"]["precision"] > 0.9 > 0.3 > rows["samples"]["recall"]
    assert rows["test"]["recall"] > 0.6
    assert rows["test"]["recall_error"] is None


def test_the_baseline_is_the_mean_of_many_random_sets_and_its_error_their_deviation() -> None:
    far = torch.where(torch.arange(1000) < 500, 10.0, -10.0)[:, None]  # two classes, so that their mix counts
    train = normal(1000, 3, seed=0).double() + far
    orders = [torch.randperm(1000, generator=torch.Generator().manual_seed(seed)) for seed in range(200)]
    each = torch.tensor([frechet_distance(train[order[100:]], train[order[:100]]) for order in orders])
    found = among_real(train, 100)
    assert found.value == pytest.approx(float(each.mean()), abs=4 * float(each.std()) / 20**0.5)
    assert found.error == pytest.approx(float(each.std()), rel=0.5)
