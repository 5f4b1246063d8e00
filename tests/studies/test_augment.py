"""Augmentation: each of its parts does what its name says, and no more than its strength."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.images.pixels import to_float
from studies.rare_class.augment import STRENGTHS, Strengths, _field, augmented
from tests.small import images

NONE = Strengths(0, 0, 0, 0, 0)
BLACK = torch.full((1, 1, 1, 1), -1.0)


def rng(seed: int = 0) -> torch.Generator:
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


def test_without_strength_images_stay_as_they_are() -> None:
    given = to_float(images(5, (3, 9, 17)))
    found = augmented(given, rng(), torch.linspace(-1, 1, 3).view(1, -1, 1, 1), NONE)
    assert (found - given).abs().max() < 2e-5


def test_the_generator_decides_all_of_it_and_each_image_goes_its_own_way() -> None:
    given = to_float(images(1, (3, 12, 20))).expand(4, -1, -1, -1)
    background = torch.zeros(1, 3, 1, 1)
    found, again, other = (augmented(given, rng(seed), background) for seed in (0, 0, 1))
    assert torch.equal(found, again)
    assert (found - other).abs().amax((1, 2, 3)).min() > 0.1
    assert min((found[i] - found[j]).abs().max() for i in range(4) for j in range(i)) > 0.1
    given = to_float(images(3))
    for name, value in STRENGTHS._asdict().items():
        found = augmented(given, rng(), BLACK, NONE._replace(**{name: value}))
        assert (found - given).abs().mean() > 0.05, name


def test_rotation_keeps_distances_and_stays_below_its_angle() -> None:
    for dy, dx in ((6, 0), (0, 6)):
        down, right = centres(augmented(blob(24, 44, dy, dx, 400), rng(), BLACK, NONE._replace(rotation=15)))
        assert torch.hypot(down, right).sub(6).abs().max() < 0.05
        angles = torch.rad2deg(torch.atan2(down, right)) - (90 if dy else 0)
        assert angles.max() == pytest.approx(15, abs=0.5)
        assert angles.min() == pytest.approx(-15, abs=0.5)


def test_scale_is_the_size_of_what_is_seen_and_shear_moves_along_the_rows_alone() -> None:
    down, right = centres(augmented(blob(28, 40, 4, 8, 400), rng(), BLACK, NONE._replace(scale=0.15)))
    assert (right / down - 2).abs().max() < 0.02
    assert (down / 4).min() == pytest.approx(0.85, abs=0.005)
    assert (down / 4).max() == pytest.approx(1.15, abs=0.005)
    down, right = centres(augmented(blob(28, 40, 6, 0, 400), rng(), BLACK, NONE._replace(shear=10)))
    assert (down - 6).abs().max() < 0.05
    assert right.max() == pytest.approx(6 * math.tan(math.radians(10)), abs=0.03)


def test_the_elastic_field_has_unit_deviation_everywhere_and_is_smooth() -> None:
    field = _field(4000, 7, 64, rng())
    assert field.mean(0).abs().max() < 0.08
    assert (field.std(0) - 1).abs().max() < 0.06
    for dim, side in ((1, 7), (2, 64)):
        assert field.diff(dim=dim).std() * side / 28 < 0.3  # of what would be a pixel of 28
