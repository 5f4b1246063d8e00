"""Samples beside random subsets of real images."""

import statistics

import pytest
import torch
from torch import Tensor

from ddpm.scoring.comparisons import DRAWS, compare, draw_subsets, variety
from ddpm.scoring.manifold import manifold, manifold_scores
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
    sets = {
        "samples": [samples] * DRAWS,
        "test": [test[chosen] for chosen in draws.test],
        "baseline": [train[chosen] for chosen in draws.baseline],
    }
    for name, row in rows.items():
        pairs = list(zip(draws.references, sets[name], strict=True))
        values = [frechet_distance(train[reference], each) for reference, each in pairs]
        assert row["frechet"] == pytest.approx(statistics.fmean(values))
        if name != "samples":
            assert row["frechet_deviation"] == pytest.approx(statistics.stdev(values))
    distance = FrechetDistance(train[draws.references[0]])
    assert rows["samples"]["frechet_deviation"] == pytest.approx(jackknife(distance, samples))


def test_variety_is_the_mean_over_the_draws() -> None:
    samples, test, train = 0.7 * normal(60, 0), normal(60, 1), normal(300, 2)
    draws = draw_subsets(60, 300, 60, seed=0)
    rows = variety(samples, test, train, draws)
    references = [manifold(train[reference[:60]]) for reference in draws.references]
    found = [manifold_scores(each, manifold(samples)) for each in references]
    for index, field in enumerate(("precision", "recall", "density", "coverage")):
        assert rows["samples"][field] == pytest.approx(statistics.fmean(each[index] for each in found))
    baseline = [
        manifold_scores(each, manifold(train[left])).recall
        for each, left in zip(references, draws.baseline, strict=True)
    ]
    assert rows["baseline"]["recall"] == pytest.approx(statistics.fmean(baseline))
    assert rows["baseline"]["recall_deviation"] == pytest.approx(statistics.stdev(baseline))
    # Of one set, the references alone would vary.
    assert [*rows["samples"]] == [*rows["test"]] == ["precision", "recall", "density", "coverage"]
    assert "recall_deviation" in variety(samples, normal(120, 1), train, draw_subsets(120, 300, 60, seed=0))["test"]
