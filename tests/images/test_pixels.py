"""The two forms of images, and what their size asks for."""

import pytest
import torch

from ddpm.images.card import halvings, padded
from ddpm.images.splits import to_float, to_uint8


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert floats[0] == -1
    assert floats[255] == 1
    torch.testing.assert_close(floats.double(), torch.arange(256).double() / 127.5 - 1, rtol=0, atol=1.2e-7)
    assert to_uint8(floats).dtype == torch.uint8
    assert torch.equal(to_uint8(floats), every)


def test_floats_are_clipped_and_rounded_to_the_nearest_byte() -> None:
    step = 1 / 127.5
    values = torch.tensor([-1.5, -1.0, 1.0, 1.5, 1e30, -float("inf"), -1 + 0.49 * step, -1 + 0.51 * step, 0.4 * step])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 255, 0, 0, 1, 128]


@pytest.mark.parametrize(
    ("height", "width", "halved", "size"),
    [
        (1, 1, 0, (1, 1)),
        (11, 18, 1, (12, 18)),
        (16, 8, 1, (16, 8)),  # 11.3 x 11.3 would have as many pixels
        (28, 28, 2, (28, 28)),
        (30, 20, 2, (32, 20)),
        (100, 100, 4, (112, 112)),
        (1024, 1024, 7, (1024, 1024)),
    ],
)
def test_images_are_halved_to_some_5_to_9_pixels_a_side_and_padded_for_it(
    height: int, width: int, halved: int, size: tuple[int, int]
) -> None:
    assert halvings(height, width) == halvings(width, height) == halved
    assert padded(height, width) == size
    assert padded(width, height) == size[::-1]


def test_what_is_padded_can_be_halved_as_often_as_its_own_size_asks_for() -> None:
    """Also where the padding itself asks for a halving more, as from 35 x 37 to 36 x 40."""
    for height in range(1, 65):
        for width in range(1, 65):
            size = padded(height, width)
            assert size[0] >= height
            assert size[1] >= width
            assert [side % 2 ** halvings(*size) for side in size] == [0, 0], f"{height} x {width} becomes {size}"
