"""The distance below which a sampled image is a copy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.balancing.copies import threshold

UNIT = 2 / 255  # a level in [-1, 1]


def flat(*levels: int) -> Tensor:
    """Grey images of 2 by 2 pixels (N, 1, 2, 2), each of one level."""
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


@pytest.mark.parametrize("count", [100, 150])
def test_of_a_hundred_fresh_images_the_first_percent_is_nearer(count: int) -> None:
    levels = [50 + each for each in range(count)]
    expected = np.quantile([UNIT * level for level in levels], 0.01, method="weibull")
    assert threshold(flat(*levels), flat(0)) == pytest.approx(expected, rel=1e-5)
    assert UNIT * 50 <= expected < UNIT * 51


def test_of_fewer_the_nearest_says_it() -> None:
    assert threshold(flat(*range(50, 149)), flat(0)) == pytest.approx(UNIT * 50, rel=1e-5)
    assert threshold(flat(90, 40), flat(0, 100)) == pytest.approx(UNIT * 10, rel=1e-5)


def test_near_duplicates_of_training_images_do_not_count() -> None:
    assert threshold(flat(0, 2, 50, 60, 70), flat(0)) == pytest.approx(UNIT * 50, rel=1e-5)


@pytest.mark.parametrize("fresh", [(), (200,), (0, 40)], ids=str)
def test_without_fresh_images_training_images_stand_in(fresh: tuple[int, ...]) -> None:
    """Those that equal training images are near-duplicates, and none is left."""
    train = flat(0, 40, 70, 200)
    assert threshold(flat(*fresh), train) == pytest.approx(UNIT * 30, rel=1e-5)


def test_training_images_that_are_near_duplicates_do_not_stand_in() -> None:
    assert threshold(flat(), flat(0, 0, 40, 90, 150)) == pytest.approx(UNIT * 40, rel=1e-5)


def test_a_hundred_training_images_stand_in_by_their_first_percent() -> None:
    images = torch.randint(0, 256, (120, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = images.double().flatten(1) / 127.5
    distances = (values[:, None] - values).square().mean(2).sqrt() + torch.diag(torch.full((120,), torch.inf))
    expected = np.quantile(distances.min(1).values.numpy(), 0.01, method="weibull")
    assert threshold(images[:0], images) == pytest.approx(expected, rel=1e-5)


def test_of_one_training_image_alone_nothing_is_known() -> None:
    assert threshold(flat(), flat(9)) == 0
