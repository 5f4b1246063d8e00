"""Precision and recall on sets whose answers are known, and samples beside random subsets of real images."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.scores.comparisons import SETS, Places, compare, counts_of, draw_places, left_out, variety
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


def drawn(samples: Tensor, test: Tensor, train: Tensor, kept: Tensor | None = None) -> Places:
    """As if a filter had kept the flagged samples, and would keep the even ones of the training images."""
    if kept is None:
        return draw_places(samples, test, train, torch.ones(len(samples)) > 0, torch.ones(len(train)) > 0, seed=3)
    return draw_places(samples, test, train, kept, torch.arange(len(train)) % 2 == 0, seed=3)


def test_each_row_has_the_label_counts_of_the_samples() -> None:
    samples, test = (
        torch.arange(400) % 4 // 3,
        (torch.arange(200) < 30).long(),
    )  # a quarter of ones; too few in the test
    train, kept = (torch.arange(4000) >= 2000).long(), torch.arange(400) % 5 > 0
    places = drawn(samples, test, train, kept)
    of = {"samples": samples, "unfiltered": samples, "test": test}
    counts = {name: [of.get(name, train)[each].bincount().tolist() for each in sets] for name, sets in places.items()}
    assert counts.pop("test") == [[90, 30]]
    assert counts.pop("fewer") == [[90, 30]] * SETS
    assert counts == {
        "unfiltered": [[240, 80]],
        "samples": [[240, 80]],
        "real": [[240, 80]] * SETS,
        "real_filtered": [[240, 80]] * SETS,
    }
    assert kept[places["samples"][0]].all()
    assert all((each % 2 == 0).all() for each in places["real_filtered"])
    for index in range(SETS):
        both = {*places["real"][index].tolist(), *places["real_filtered"][index].tolist()}
        assert {*left_out(places, index).tolist()} == both
    assert not torch.equal(places["real"][0], places["real"][0].sort().values)  # groups of the jackknife are random
    assert not torch.equal(places["real"][0], places["real"][1])
    assert drawn(samples, test, train).keys() == {"samples", "real", "test", "fewer"}


def test_a_rare_class_does_not_shrink_the_other_ones() -> None:
    wanted, available = torch.tensor([500, 400, 100]), torch.tensor([1000, 1000, 90])
    assert counts_of(wanted, available).tolist() == [450, 360, 90]
    assert counts_of(wanted, torch.tensor([1000, 1000, 40])).tolist() == [500, 400, 40]
    assert counts_of(torch.tensor([500, 0, 0]), torch.tensor([700, 900, 0])).tolist() == [500, 0, 0]


def test_narrow_samples_have_precision_but_no_recall() -> None:
    one, labels = torch.zeros(60, dtype=torch.long), torch.zeros(300, dtype=torch.long)
    rows = variety(normal(60, 4, seed=0) / 3, normal(60, 4, seed=1), normal(300, 4, seed=2), drawn(one, one, labels))
    assert rows["samples"]["precision"] > 0.9 > 0.3 > rows["samples"]["recall"]
    assert rows["test"]["recall"] > 0.6
    assert rows["test"]["recall_error"] is None


def test_distances_are_means_over_references_and_their_excess_is_over_real_images_of_the_same_labels() -> None:
    """Two classes that are far apart: samples have another mix than training images, which alone tells them apart."""

    def of(count: int, ones: int, seed: int) -> tuple[Tensor, Tensor]:
        labels = (torch.arange(count) < ones).long()
        return normal(count, 3, seed=seed).double() + 20 * labels[:, None], labels

    (samples, mine), (test, others), (train, labels) = of(400, 100, 0), of(200, 50, 1), of(2000, 1000, 2)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    samples, mine = samples[order], mine[order]
    places = drawn(mine, others, labels)
    rows = compare(samples, test, train, places)

    def distance(values: Tensor, index: int) -> float:
        rest = torch.ones(2000, dtype=torch.bool)
        rest[places["real"][index]] = False
        return frechet_distance(train[rest], values)

    real, fewer = (
        torch.tensor([distance(train[places[name][index]], index) for index in range(SETS)], dtype=torch.float64)
        for name in ("real", "fewer")
    )
    own, tested = (
        torch.tensor([distance(each, index) for index in range(SETS)], dtype=torch.float64) for each in (samples, test)
    )
    assert rows.keys() == {"samples", "real", "test"}
    assert rows["real"]["frechet"] == pytest.approx(float(real.mean()))
    assert rows["samples"]["frechet"] == pytest.approx(float(own.mean()))
    assert rows["samples"]["frechet_excess"] == pytest.approx(float((own - real).mean()))
    assert rows["test"]["frechet_excess"] == pytest.approx(float((tested - fewer).mean()))
    assert rows["samples"]["frechet"] > 20
    for name in ("samples", "test"):
        assert abs(rows[name]["frechet_excess"]) < 2.5 * rows[name]["frechet_excess_error"]
    errors = rows["samples"]["frechet_error"], rows["real"]["frechet_error"] / SETS**0.5
    assert rows["samples"]["frechet_excess_error"] == pytest.approx(math.hypot(*errors))
    assert rows["real"]["frechet_error"] == pytest.approx(float(real.std()), rel=0.8)  # one mix: no chance in that
    assert rows["real"]["frechet_error"] < 0.1 * rows["real"]["frechet"]
