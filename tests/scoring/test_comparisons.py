"""Samples beside random subsets of real images."""

import torch

from ddpm.scoring.comparisons import compare, draw_subsets, variety
from ddpm.scoring.scores import FrechetDistance, jackknife
from tests.small import normal


def test_a_baseline_and_its_reference_are_all_training_images() -> None:
    draws = draw_subsets(test=50, train=100, count=20, seed=3)
    assert [len(each) for each in draws] == [80, 20, 20]
    assert sorted([*draws.reference.tolist(), *draws.baseline.tolist()]) == list(range(100))
    assert draws.baseline.tolist() != list(range(20))
    assert len(set(draws.test.tolist())) == 20
    assert 0 <= draws.test.min() <= draws.test.max() < 50
    torch.testing.assert_close(draw_subsets(50, 100, 20, 3), draws)
    assert not torch.equal(draw_subsets(50, 100, 20, 4).test, draws.test)


def test_distances_are_those_of_the_subsets_with_their_errors() -> None:
    samples, test, train = 1.5 * normal(60, 4, seed=0), normal(200, 4, seed=1) + 0.1, normal(300, 4, seed=2)
    draws = draw_subsets(200, 300, 60, seed=0)
    rows = compare(samples, test, train, draws)
    distance = FrechetDistance(train[draws.reference])
    for name, each in (("samples", samples), ("test", test[draws.test]), ("baseline", train[draws.baseline])):
        assert rows[name] == {"frechet": distance(each), "frechet_error": jackknife(distance, each)}
    assert rows["test"]["frechet"] < rows["samples"]["frechet"]


def test_narrow_samples_have_precision_but_no_recall() -> None:
    rows = variety(
        normal(60, 4, seed=0) / 3, normal(60, 4, seed=1), normal(300, 4, seed=2), draw_subsets(60, 300, 60, seed=0)
    )
    assert rows["samples"]["precision"] > 0.9 > 0.3 > rows["samples"]["recall"]
    assert rows["test"]["recall"] > 0.6
    assert rows["test"]["recall_error"] is None
