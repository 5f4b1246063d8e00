"""The two-sample test: chance between halves of one set, and sure of a faint veil."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.scores import c2st
from ddpm.scores.c2st import balanced_accuracy, c2st_pairs, halves, quantised, run_c2st
from tests.small import CPU


@pytest.fixture(autouse=True)
def _few_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c2st, "STEPS", 60)


def spots(count: int, seed: int, channels: int = 1) -> Tensor:
    """White spots on black, uint8 (count, channels, 12, 12)."""
    noise = torch.randn(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(noise, size=(12, 12), mode="bilinear") > 0.5).to(torch.uint8) * 255


def veiled(images: Tensor) -> Tensor:
    """Raise a tenth of the pixels by one level."""
    veil = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    return images + (veil & (images < 255)).to(torch.uint8)


@pytest.mark.parametrize(("network", "channels"), [("a", 1), ("b", 1), ("b", 3)])
def test_halves_of_one_set_are_alike_and_a_veil_is_found(network: str, channels: int) -> None:
    images = spots(3000, 0, channels)
    alike = run_c2st(images[:1500], images[1500:], network, 0, CPU)
    assert alike.accuracy.value == pytest.approx(0.5, abs=0.05)
    found = run_c2st(veiled(images[:1500]), images[1500:], network, 0, CPU)
    assert found.accuracy.value > 0.9


def test_halves_divide_each_side_evenly_and_equal_images_lie_in_one() -> None:
    one, other = spots(50, 0), spots(50, 1)
    samples, real = torch.cat([one, one[:40]]), torch.cat([other, other[:30], one[:10]])
    learned, tested = halves(samples, real, 0)
    assert sorted(torch.cat([learned, tested]).tolist()) == list(range(180))
    assert len(tested) == pytest.approx(90, abs=10)
    assert (tested < 90).sum() == pytest.approx(45, abs=5)
    seen, unseen = (
        {image.numpy().tobytes() for image in torch.cat([samples, real])[half]} for half in (learned, tested)
    )
    assert seen.isdisjoint(unseen)


def test_the_error_is_that_of_the_two_sides() -> None:
    """A network that calls nearly all images real is right in nearly half of the cases, with hardly any spread."""
    real = torch.arange(2000) < 1000
    for share, variance in ((0.5, 0.25 / 2000), (0.99, 0.0099 / 2000)):
        called_real = torch.arange(2000) % 1000 < 1000 * share
        found = balanced_accuracy(called_real == real, real)
        assert found.value == 0.5
        assert found.error == pytest.approx(variance**0.5, rel=0.1)


def test_the_surest_are_samples_that_were_not_learned() -> None:
    images = spots(400, 0)
    samples = torch.cat([images[:100], veiled(images[100:200])])
    surest = run_c2st(samples, images[200:], "a", 0, CPU).most_certain
    assert set(surest.tolist()) == {index for index in halves(samples, images[200:], 0)[1].tolist() if index < 200}
    assert (surest[:20] >= 100).sum() > 10


def test_samples_that_are_all_equal_are_told() -> None:
    images = spots(600, 0)
    assert (run_c2st(images[:1].expand(300, -1, -1, -1), images[300:], "a", 0, CPU).accuracy.value or 0) > 0.9


def scores(sets: dict[str, Tensor], real: Tensor) -> dict[tuple[str, str], float | None]:
    return {test: run_c2st(*pair, "b", 0, CPU).accuracy.value for test, pair in c2st_pairs(sets, real).items()}


def test_with_fewer_levels_the_veil_is_hidden_but_other_shapes_are_not() -> None:
    real, others = spots(1500, 0), spots(1500, 1)
    found = scores({"samples": veiled(others), "unfiltered": others.roll(6, dims=3)}, real)
    before = found.pop(("unfiltered", "c2st_8_levels_accuracy"))
    assert [key for _, key in found] == [*c2st.LEVELS]
    every, eight, shapes = found.values()
    assert every > 0.9
    assert (eight, shapes) == pytest.approx((0.5, 0.5), abs=0.1)
    assert before > 0.8


def test_tests_are_null_where_they_mean_nothing() -> None:
    found = scores({"samples": spots(100, 0)}, spots(100, 1).clamp(min=100))
    assert [each is None for each in found.values()] == [False, False, True]
    found = scores({"samples": spots(99, 0)}, spots(99, 1))
    assert [*found.values()] == [None] * 3


def test_levels_are_reduced_in_equal_ranges_and_spread() -> None:
    levels = torch.tensor([0, 1, 31, 32, 127, 128, 224, 255], dtype=torch.uint8)
    assert quantised(levels, 8).tolist() == [0, 0, 0, 36, 109, 145, 255, 255]
    assert quantised(levels, 2).tolist() == [0] * 5 + [255] * 3
    assert torch.equal(quantised(levels, 256), levels)
