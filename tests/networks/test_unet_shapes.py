"""The network for images of any size, in grey or colour: what is chosen for them, and what is refused."""

import pytest

from ddpm.unet import UNet
from tests.small import unet_params

FREE = unet_params(channels=None, patch_size=None)


@pytest.mark.parametrize(
    ("size", "grey", "colour", "patch_size"),
    [
        ((9, 9), (128,), (128,), 1),
        ((16, 8), (64, 128), (64, 128), 1),
        ((28, 28), (16, 64, 128), (32, 64, 128), 1),
        ((48, 32), (16, 32, 64, 128), (32, 32, 64, 128), 1),
        ((128, 128), (16, 32, 64, 128), (32, 32, 64, 128), 2),
        ((512, 512), (32, 32, 64, 128), (96, 96, 96, 128), 4),
    ],
)
def test_what_is_not_set_is_chosen_for_the_images(
    size: tuple[int, int], grey: tuple[int, ...], colour: tuple[int, ...], patch_size: int
) -> None:
    for channels, expected in ((1, grey), (3, colour)):
        found = FREE.for_images((channels, *size))
        assert found == FREE.model_copy(update={"channels": expected, "patch_size": patch_size})
        assert found.for_images((channels, *size)) == found


@pytest.mark.parametrize(
    ("given", "side", "channels", "patch_size"),
    [
        ({"channels": (8, 8), "patch_size": None}, 128, (8, 8), 2),
        ({"channels": None, "patch_size": 4}, 28, (128,), 4),
        ({"channels": None, "patch_size": 1}, 128, (16, 32, 64, 128), 1),
    ],
)
def test_what_is_set_is_kept(given: dict[str, object], side: int, channels: tuple[int, ...], patch_size: int) -> None:
    found = unet_params(**given).for_images((1, side, side))
    assert (found.channels, found.patch_size) == (channels, patch_size)


@pytest.mark.parametrize(
    ("channels", "patch_size", "size", "better"),
    [
        ((8, 8, 8, 8), 1, (28, 28), "32 x 32"),
        ((8, 8, 8), 2, (16, 28), "16 x 32"),
        (None, 4, (30, 33), "32 x 32"),
        (None, None, (29, 28), "28 x 28"),
    ],
)
def test_levels_that_do_not_divide_the_images_are_refused_with_a_size_that_fits(
    channels: tuple[int, ...] | None, patch_size: int | None, size: tuple[int, int], better: str
) -> None:
    params = unet_params(channels=channels, patch_size=patch_size)
    height, width = map(int, better.split(" x "))
    assert params.for_images((1, height, width)).channels
    with pytest.raises(ValueError, match=f"^model.channels: .*{better}"):
        UNet(params, (1, *size), 1, 10)
