"""Augmentation: each of its parts does what its name says, and no more than its strength."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.classifier.fit import shifted
from ddpm.images.pixels import to_float
from ddpm.study.augment import STRENGTHS, Strengths, _field, augmented
from tests.small import images

NONE = Strengths(0, 0, 0, 0, 0)
BLACK = torch.full((1, 1, 1, 1), -1.0)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob(height: int, width: int, dy: float, dx: float, count: int) -> Tensor:
    """A smooth spot, so many pixels below and to the right of the middle."""
    y = torch.arange(height)[:, None] - (height - 1) / 2 - dy
    x = torch.arange(width) - (width - 1) / 2 - dx
    return (2 * torch.exp(-(x**2 + y**2) / 8) - 1).expand(count, 1, height, width)


def centres(found: Tensor) -> tuple[Tensor, Tensor]:
    """Where the spots are, in pixels from the middle: down and right."""
    light = (found[:, 0] + 1).clamp(min=0)
    height, width = light.shape[1:]
    y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    whole = light.sum((1, 2))
    return (light.sum(2) @ y) / whole, (light.sum(1) @ x) / whole


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 17), (3, 1, 2)])
def test_without_strength_images_stay_as_they_are(shape: tuple[int, int, int]) -> None:
    given = to_float(images(5, shape))
    background = torch.linspace(-1, 1, shape[0]).view(1, -1, 1, 1)
    found = augmented(given, source(), background, NONE)
    assert found.shape == given.shape
    assert (found - given).abs().max() < 2e-5


def test_the_generator_decides_all_of_it_and_each_image_goes_its_own_way() -> None:
    given = to_float(images(1, (3, 12, 20))).expand(4, -1, -1, -1)
    background = torch.zeros(1, 3, 1, 1)
    found, again, other = (augmented(given, source(seed), background) for seed in (0, 0, 1))
    assert torch.equal(found, again)
    assert (found - other).abs().amax((1, 2, 3)).min() > 0.1
    assert min((found[i] - found[j]).abs().max() for i in range(4) for j in range(i)) > 0.1


def test_each_strength_alone_changes_images() -> None:
    given = to_float(images(3))
    for name, value in STRENGTHS._asdict().items():
        found = augmented(given, source(), BLACK, NONE._replace(**{name: value}))
        assert (found - given).abs().mean() > 0.05, name


def test_images_stay_in_their_range_and_background_alone_stays_background() -> None:
    given = to_float(images(50, (3, 14, 10)))
    background = torch.tensor([-1.0, 0.25, 1.0]).view(1, 3, 1, 1)
    found = augmented(given, source(), background)
    assert found.min() > -1 - 1e-5
    assert found.max() < 1 + 1e-5
    plain = background.expand(50, 3, 14, 10)
    assert torch.equal(augmented(plain, source(), background), plain)


def test_what_comes_in_at_the_edges_is_background() -> None:
    """At a corner it is whole where an image went a pixel or more off it, by 10 pixels of 20 at most: 1 - 0.55^2."""
    given = torch.ones(500, 1, 20, 20)
    for level in (-1.0, 0.5):
        found = augmented(given, source(), torch.full((1, 1, 1, 1), level), NONE._replace(shift=0.5))
        corners = found[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == level).float().mean() == pytest.approx(0.6975, abs=0.02)
        assert found.min() >= min(level, 1) - 1e-5


@pytest.mark.parametrize(("height", "width"), [(28, 28), (20, 44)])
def test_shifts_are_shares_of_the_sides(height: int, width: int) -> None:
    down, right = centres(augmented(blob(height, width, 0, 0, 400), source(), BLACK, NONE._replace(shift=0.1)))
    for found, side in ((down, height), (right, width)):
        assert found.abs().max() <= 0.1 * side + 0.01
        assert found.max() == pytest.approx(0.1 * side, rel=0.05)
        assert found.min() == pytest.approx(-0.1 * side, rel=0.05)
        assert found.std() == pytest.approx(0.2 * side / math.sqrt(12), rel=0.1)


def test_a_shift_by_whole_pixels_is_that_of_the_scores_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, generator: torch.tensor([0.5, 0.5, 0.5, 1.0, 0.0]).view(5, 1))
    given = to_float(images(1, (1, 20, 10)))
    found = augmented(given, source(), BLACK, NONE._replace(shift=0.1))
    assert (found - shifted(given, 1, -2, BLACK)).abs().max() < 2e-5


@pytest.mark.parametrize(("height", "width"), [(28, 28), (24, 44)])
def test_rotation_keeps_distances_and_stays_below_its_angle(height: int, width: int) -> None:
    for dy, dx in ((6, 0), (0, 6)):
        down, right = centres(augmented(blob(height, width, dy, dx, 400), source(), BLACK, NONE._replace(rotation=15)))
        assert torch.hypot(down, right).sub(6).abs().max() < 0.05
        angles = torch.rad2deg(torch.atan2(down, right)) - (90 if dy else 0)
        assert angles.abs().max() < 15.1
        assert angles.max() > 14.5
        assert angles.min() < -14.5


def test_scale_is_the_size_of_what_is_seen() -> None:
    down, right = centres(augmented(blob(28, 40, 4, 8, 400), source(), BLACK, NONE._replace(scale=0.15)))
    assert (right / down - 2).abs().max() < 0.02
    assert (down / 4).min() == pytest.approx(0.85, abs=0.005)
    assert (down / 4).max() == pytest.approx(1.15, abs=0.005)


def test_shear_moves_along_the_rows_alone() -> None:
    down, right = centres(augmented(blob(28, 40, 6, 0, 400), source(), BLACK, NONE._replace(shear=10)))
    assert (down - 6).abs().max() < 0.05
    assert right.max() == pytest.approx(6 * math.tan(math.radians(10)), abs=0.03)
    assert right.min() == pytest.approx(-6 * math.tan(math.radians(10)), abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (7, 64)])
def test_the_elastic_field_has_unit_deviation_everywhere_and_is_smooth(height: int, width: int) -> None:
    field = _field(4000, height, width, source())
    assert field.shape == (4000, height, width, 2)
    assert field.mean(0).abs().max() < 0.08
    assert (field.std(0) - 1).abs().max() < 0.06
    for dim, side in ((1, height), (2, width)):
        steps = field.diff(dim=dim).std() * side / 28  # of what would be a pixel of 28
        assert steps < 0.3
        across, down = field.unbind(3)
    assert abs((across * down).mean().item()) < 0.02
