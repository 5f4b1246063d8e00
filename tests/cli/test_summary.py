"""What `ddpm score` says of scores: no more than their errors allow, and nothing that rests on classes that are off."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.cli.summary import NAMES, SAYS, UNSEEN, WITHHELD, compared, summary
from ddpm.scores.classes import class_mix
from ddpm.scores.copying import NEAR, near_copies, nearness
from ddpm.scores.distances import Estimate, share_of

COPIED = "near_copies_ratio_pixels"


def says(**rows: tuple[Estimate, Estimate]) -> dict[str, str]:
    scores: dict[str, Any] = {"samples": {}, "real": {}, "test": {}}
    for key, (own, real) in rows.items():
        scores["samples"] |= own.row(key)
        scores["test" if key in UNSEEN else "real"] |= real.row(key)
    lines = {line.name: line.says for line in summary(scores)}
    return {key: lines[NAMES[key]] for key in rows}


def gaussian(count: int, seed: int) -> tuple[list[Tensor], Tensor]:
    values = torch.randn(count, 40, generator=torch.Generator().manual_seed(seed))
    return [values], torch.zeros(count, dtype=torch.long)


def test_gaussians_that_are_shrunk_are_no_copies_and_planted_ones_are() -> None:
    ([train], labels), ([own], mine) = gaussian(4000, 0), gaussian(2000, 2)
    held_out = nearness(*gaussian(2000, 1), train, labels)
    found = near_copies([nearness([0.8 * own], mine, train, labels).ratio], held_out)
    assert found[0].value == pytest.approx(NEAR, abs=0.008)
    assert says(**{COPIED: found})[COPIED].startswith("no sign of copies")
    own[:100] = train[:100]
    found = near_copies([nearness([own], mine, train, labels).ratio], held_out)
    assert says(**{COPIED: found})[COPIED].startswith("copies: ")


def test_of_classes_that_are_mixed_otherwise_this_is_said_and_nothing_else() -> None:
    ones_and_threes = torch.tensor([1] * 540 + [3] * 60)
    real = torch.arange(2000) % 10
    risen = Estimate(0.05, 0.002), Estimate(0.01, 0.002)
    given = {"precision": risen, COPIED: risen}
    told = says(class_mix=class_mix(ones_and_threes, real), **given)
    assert next(iter(NAMES)) == "class_mix"
    assert told.pop("class_mix").startswith("80.0%")  # they may keep a fifth
    assert {*told.values()} == {WITHHELD}
    same = says(class_mix=class_mix(real[:600], real), **given)
    assert same["class_mix"].startswith("as real images")
    assert WITHHELD not in same.values()


def test_of_images_that_do_not_show_the_class_asked_for_no_copies_are_told() -> None:
    """As of labels that are shifted by an image."""
    accuracy, risen = Estimate(0.99, 0.002), (Estimate(0.055, 0.002), Estimate(0.01, 0.002))
    told = says(conditional_accuracy=(Estimate(0.1, 0.005), accuracy), precision=risen, **{COPIED: risen})
    assert {key for key, text in told.items() if text == WITHHELD} == {COPIED}
    assert list(NAMES).index("conditional_accuracy") < list(NAMES).index(COPIED)
    assert says(conditional_accuracy=(accuracy, accuracy), **{COPIED: risen})[COPIED].startswith("copies: ")


def test_where_nothing_differs_the_smallest_difference_that_would_show_is_said() -> None:
    few, many = (says(precision=(Estimate(0.95, error), Estimate(0.95, 0))) for error in (0.03, 0.001))
    assert "6.0%" in few["precision"]
    assert "0.2%" in many["precision"]


def test_the_mix_of_two_sets_of_the_same_classes_differs_as_much_as_is_expected() -> None:
    rng = torch.Generator().manual_seed(0)
    for shares in ([0.9, 0.1], [0.5, 0.2, 0.2, 0.1]):
        off = []
        for _ in range(200):
            sets = (torch.multinomial(torch.tensor(shares), size, True, generator=rng) for size in (600, 200))
            mine, expected = class_mix(*sets)
            off.append((mine.value - expected.value) / mine.error)  # type: ignore[operator]
        assert torch.tensor(off).mean().abs() < 0.2
        assert torch.tensor(off).square().mean().sqrt() == pytest.approx(1, abs=0.15)


def test_a_known_chance_has_no_error() -> None:
    rows = {"samples": Estimate(0.51, 0.004).row("c2st_accuracy"), "real": {}, "test": {}}
    (found,) = compared(rows)
    assert (found.samples, found.real, round(found.excess, 4), found.error) == (0.51, 0.5, 0.01, 0.004)
    assert "cannot" not in summary(rows)[0].says


def test_a_distance_is_judged_by_its_excess_over_real_images_of_the_same_classes() -> None:
    samples = Estimate(0.0149, 0.002).row("frechet") | Estimate(0.0082, 0.003).row("frechet_excess")
    real, test = (Estimate(value, 0.001).row("frechet") for value in (0.0067, 0.023))
    scores: dict[str, Any] = {name: {} for name in ("samples", "real", "test")}
    scores["b"] = {"samples": samples, "real": real, "test": test}
    assert compared(scores) == [("b.frechet", 0.0149, 0.0067, 0.0082, 0.003)]
    assert summary(scores)[0].says == SAYS["frechet"][0]


def test_all_of_a_hundred_may_be_as_many_as_ninety_five() -> None:
    shares = {"samples": 95, "test": 100}
    rows = {name: share_of(torch.arange(100) < each).row("conditional_accuracy") for name, each in shares.items()}
    assert summary(rows | {"real": {}})[0].says.startswith("as real images")
    rows["samples"] = share_of(torch.arange(100) < 93).row("conditional_accuracy")
    assert summary(rows | {"real": {}})[0].says == "their class shows less often"
