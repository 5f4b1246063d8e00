"""The distance below which a sampled image is a copy."""

from collections.abc import Sequence

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


@pytest.mark.parametrize(
    ("fresh", "train", "level"),
    [
        pytest.param(range(50, 149), (0,), 50, id="the nearest of fewer than a hundred"),
        pytest.param((90, 40), (0, 100), 10, id="to the nearest"),
        pytest.param((0, 2, 50, 60, 70), (0,), 50, id="but for near-duplicates"),
        pytest.param((), (0, 40, 70, 200), 30, id="training images stand in for fresh ones"),
        pytest.param((0, 40), (0, 40, 70, 200), 30, id="also where all are near-duplicates"),
        pytest.param((), (0, 0, 40, 90, 150), 40, id="but for near-duplicates of others"),
        pytest.param((), (9,), 0, id="of one image nothing is known"),
    ],
)
def test_of_fewer_the_nearest_says_it(fresh: Sequence[int], train: Sequence[int], level: int) -> None:
    assert threshold(flat(*fresh), flat(*train)) == pytest.approx(UNIT * level, rel=1e-5)


def test_a_hundred_training_images_stand_in_by_their_first_percent() -> None:
    images = torch.randint(0, 256, (120, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = images.double().flatten(1) / 127.5
    distances = (values[:, None] - values).square().mean(2).sqrt() + torch.diag(torch.full((120,), torch.inf))
    expected = np.quantile(distances.min(1).values.numpy(), 0.01, method="weibull")
    assert threshold(images[:0], images) == pytest.approx(expected, rel=1e-5)
