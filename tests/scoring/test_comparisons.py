"""Samples beside random subsets of real images."""

import statistics

import pytest
import torch
from torch import Tensor

from ddpm.scoring.comparisons import DRAWS, compare, draw_subsets, variety
from ddpm.scoring.scores import FrechetDistance, frechet_distance, jackknife


def normal(count: int, seed: int, width: int = 4) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_a_baseline_and_its_reference_are_all_training_images() -> None:
    draws = draw_subsets(test=50, train=100, count=20, seed=3)
    assert len(draws.references) == len(draws.baseline) == len(draws.test) == DRAWS
    for reference, baseline in zip(draws.references, draws.baseline, strict=True):
        assert (len(reference), len(baseline)) == (80, 20)
        assert sorted([*reference.tolist(), *baseline.tolist()]) == list(range(100))
    for chosen in draws.test:
        assert len(set(chosen.tolist())) == 20
        assert 0 <= chosen.min() <= chosen.max() < 50
    for subsets in draws:
        assert len({tuple(sorted(each.tolist())) for each in subsets}) == DRAWS
    torch.testing.assert_close(draw_subsets(50, 100, 20, 3), draws)
    assert not torch.equal(draw_subsets(50, 100, 20, 4).test[0], draws.test[0])
    # Of more than half of the test images there is but one: others would be nearly the same.
    assert [len(draw_subsets(test, 100, 20, 0).test) for test in (20, 39, 40)] == [1, 1, DRAWS]


def test_distances_are_means_over_the_draws_with_their_deviations() -> None:
    samples, test, train = 1.5 * normal(60, 0), normal(200, 1) + 0.1, normal(300, 2)
    draws = draw_subsets(200, 300, 60, seed=0)
    rows = compare(samples, test, train, draws)
    pairs = zip(draws.references, draws.test, strict=True)
    values = [frechet_distance(train[reference], test[chosen]) for reference, chosen in pairs]
    assert rows["test"]["frechet"] == pytest.approx(statistics.fmean(values))
    assert rows["test"]["frechet_deviation"] == pytest.approx(statistics.stdev(values))
    assert rows["baseline"]["frechet"] < rows["test"]["frechet"] < rows["samples"]["frechet"]
    distance = FrechetDistance(train[draws.references[0]])
    assert rows["samples"]["frechet_deviation"] == pytest.approx(jackknife(distance, samples))


def test_narrow_samples_have_precision_but_no_recall() -> None:
    rows = variety(normal(60, 0) / 3, normal(60, 1), normal(300, 2), draw_subsets(60, 300, 60, seed=0))
    assert rows["samples"]["precision"] > 0.9 > 0.3 > rows["samples"]["recall"]
    assert rows["test"]["recall"] > 0.6
    share = rows["test"]["recall"]  # as of 60 independent flags
    assert rows["test"]["recall_deviation"] == pytest.approx((share * (1 - share) / 60) ** 0.5, rel=0.05)
