"""The network for images of any size, in grey or colour: what is chosen for them, and what is refused."""

import pytest
import torch
from torch import nn

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard
from ddpm.images.pixels import padded
from ddpm.networks.unet import UNet, UNetParams
from tests.networks.random_weights import normal, randomised
from tests.small import DIGITS, FRUITS, unet_params

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=0.01, beta_end=0.5))
FREE = unet_params(channels=None, patch_size=None)
BLOCKS = pytest.mark.parametrize("block", ["double_conv", "residual"])


@pytest.mark.parametrize(
    ("size", "grey", "colour", "patch_size"),
    [
        ((1, 1), (128,), (128,), 1),
        ((8, 8), (128,), (128,), 1),
        ((9, 9), (128,), (128,), 1),
        ((16, 8), (64, 128), (64, 128), 1),
        ((18, 18), (64, 128), (64, 128), 1),
        ((28, 28), (16, 64, 128), (16, 64, 128), 1),
        ((32, 32), (16, 64, 128), (16, 64, 128), 1),
        ((48, 32), (16, 32, 64, 128), (16, 32, 64, 128), 1),
        ((64, 64), (16, 32, 64, 128), (16, 32, 64, 128), 1),
        ((72, 72), (16, 32, 64, 128), (16, 32, 64, 128), 1),
        ((128, 128), (16, 32, 64, 128), (32, 32, 64, 128), 2),
        ((256, 256), (32, 32, 64, 128), (96, 96, 96, 128), 4),
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
        assert expected[0] >= 2 * channels * patch_size**2


@pytest.mark.parametrize(
    ("given", "size", "channels", "patch_size"),
    [
        ({"channels": (8, 8), "patch_size": None}, (28, 28), (8, 8), 1),
        ({"channels": (8, 8), "patch_size": None}, (128, 128), (8, 8), 2),
        ({"channels": None, "patch_size": 2}, (28, 28), (64, 128), 2),
        ({"channels": None, "patch_size": 4}, (28, 28), (128,), 4),
        ({"channels": None, "patch_size": 4}, (8, 8), (128,), 4),
        ({"channels": None, "patch_size": 1}, (128, 128), (16, 32, 64, 128), 1),
        ({"channels": (1,), "patch_size": 1}, (256, 256), (1,), 1),
    ],
)
def test_what_is_set_is_kept(
    given: dict[str, object], size: tuple[int, int], channels: tuple[int, ...], patch_size: int
) -> None:
    found = unet_params(**given).for_images((1, *size))
    assert (found.channels, found.patch_size) == (channels, patch_size)


def test_the_choice_divides_every_square_and_the_bottleneck_is_neither_large_nor_tiny() -> None:
    for side in range(8, 257):
        for channels in (1, 3):
            size = padded(side, side)
            found = FREE.for_images((channels, *size))
            assert found.channels
            assert found.patch_size
            assert 5 <= size[0] / found.patch_size / 2 ** (len(found.channels) - 1) <= 9


@pytest.mark.parametrize("size", [(35, 37), (9, 33), (13, 23), (100, 163), (60, 41)])
def test_the_choice_divides_what_is_not_square(size: tuple[int, int]) -> None:
    found = FREE.for_images((3, *padded(*size)))
    assert found.channels
    assert found.patch_size
    assert [side % (found.patch_size * 2 ** (len(found.channels) - 1)) for side in padded(*size)] == [0, 0]


@pytest.mark.parametrize(
    ("channels", "patch_size", "size", "message"),
    [
        (
            (8, 8, 8, 8),
            1,
            (28, 28),
            "model.channels: 4 of them, with model.patch_size 1, shrink images by 8, which must divide 28 x 28; set "
            "data.image_size to 32 x 32, or change one of these",
        ),
        (
            (8, 8, 8),
            2,
            (16, 28),
            "model.channels: 3 of them, with model.patch_size 2, shrink images by 8, which must divide 16 x 28; set "
            "data.image_size to 16 x 32, or change one of these",
        ),
        (
            (8, 8, 8, 8, 8),
            4,
            (28, 28),
            "model.channels: 5 of them, with model.patch_size 4, shrink images by 64, which must divide 28 x 28; set "
            "data.image_size to 64 x 64, or change one of these",
        ),
        (
            None,
            4,
            (30, 33),
            "model.channels: 1 of them, with model.patch_size 4, shrink images by 4, which must divide 30 x 33; set "
            "data.image_size to 32 x 32, or change one of these",
        ),
        (
            None,
            None,
            (29, 28),
            "model.channels: 3 of them, with model.patch_size 1, shrink images by 4, which must divide 29 x 28; set "
            "data.image_size to 28 x 28, or change one of these",
        ),
    ],
)
def test_levels_that_do_not_divide_the_images_are_refused(
    channels: tuple[int, ...] | None, patch_size: int | None, size: tuple[int, int], message: str
) -> None:
    params = unet_params(channels=channels, patch_size=patch_size)
    data = DataCard(name="set", shape=(1, *size), classes=("a",))
    with pytest.raises(ValueError, match="must divide") as caught:
        params.for_images(data.shape)
    assert str(caught.value) == message
    with pytest.raises(ValueError, match="must divide") as caught:
        UNet(params, SCHEDULE, data)
    assert str(caught.value) == message


def test_a_size_that_is_suggested_is_taken() -> None:
    for side in range(1, 100):
        for params in (unet_params(channels=(4,) * 4, patch_size=1), unet_params(channels=(4, 4), patch_size=4)):
            try:
                params.for_images((1, side, 64))
            except ValueError as error:
                height = int(str(error).split("data.image_size to ")[1].split(" x ")[0])
                assert params.for_images((1, height, 64)) == params
                assert abs(height - side) < 8


def tiny(block: str, levels: int = 2, patch_size: int = 2, **changes: object) -> UNetParams:
    return unet_params(channels=(4, 6, 8)[:levels], block=block, patch_size=patch_size, attention=True, **changes)


# Levels and patch size: every pair of up to three levels that 16 x 8 pixels allow.
@pytest.mark.parametrize(("levels", "patch_size"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (1, 4), (2, 4)])
@BLOCKS
def test_of_images_that_are_not_square_and_in_colour_the_noise_is_like_them(
    block: str, levels: int, patch_size: int
) -> None:
    params = tiny(block, levels, patch_size, class_conditional=True, prediction="v")
    model = randomised(UNet(params, SCHEDULE, FRUITS)).double().eval()
    x_t, t = normal(2, *FRUITS.shape).double(), torch.tensor([3, 9])
    with torch.no_grad():
        pred_noise, other = (model(x_t, t, torch.tensor(labels)) for labels in ([0, 2], [0, 1]))
    assert pred_noise.shape == x_t.shape
    assert pred_noise.dtype == x_t.dtype
    assert torch.equal(pred_noise[0], other[0])
    assert (pred_noise[1] - other[1]).abs().max() > 1e-5


@BLOCKS
def test_every_colour_tells_of_every_other(block: str) -> None:
    model = randomised(UNet(tiny(block), SCHEDULE, FRUITS)).double().eval()
    x_t, t = normal(1, *FRUITS.shape).double(), torch.tensor([4])
    for channel in range(3):
        changed = x_t.clone()
        changed[:, channel] += 1
        with torch.no_grad():
            moved = (model(changed, t) - model(x_t, t)).abs().amax(dim=(0, 2, 3))
        assert moved.min() > 1e-5


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_patches_keep_pixels_and_colours_in_place(patch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = UNet(unet_params(channels=(48,), block="double_conv", patch_size=patch_size), SCHEDULE, FRUITS)
    # Nothing happens between patching and its inverse: what goes in must come out where it was.
    width = 3 * patch_size**2
    for block in model.bottleneck:
        monkeypatch.setattr(block, "forward", lambda x, embedding: x)
    model.head = nn.Conv2d(width, width, 1, bias=False)
    nn.init.dirac_(model.head.weight)
    x_t = normal(2, *FRUITS.shape)
    assert torch.equal(model(x_t, torch.tensor([0, 1])), x_t)


def test_a_network_s_params_are_those_that_were_chosen() -> None:
    model = UNet(unet_params(channels=None, patch_size=None, class_conditional=True), SCHEDULE, FRUITS)
    assert model.params == FREE.for_images(FRUITS.shape).model_copy(update={"class_conditional": True})
    assert model.data == FRUITS
    assert model.label is not None
    assert model.label.weight.shape == (3, 4)
    assert model(normal(2, *FRUITS.shape), torch.tensor([0, 1]), torch.tensor([0, 2])).shape == (2, *FRUITS.shape)


def test_a_network_that_is_set_has_the_same_first_weights_as_one_that_is_chosen() -> None:
    def weights(params: UNetParams) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return UNet(params, SCHEDULE, DIGITS).state_dict()

    chosen = weights(FREE)
    torch.testing.assert_close(chosen, weights(FREE.for_images(DIGITS.shape)), rtol=0, atol=0)
