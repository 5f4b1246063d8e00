import io

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.pictures.figures import MARGIN, image_gif, image_png, shortened, text_rows, tile


def numbered(*shape: int) -> torch.Tensor:
    """Images of distinct values."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)


def test_tile_lays_out_row_by_row_with_white_between() -> None:
    images = numbered(3, 1, 2, 2)  # 0..3, 4..7, 8..11
    assert tile(images, columns=2, gap=1).tolist() == [
        [
            [255, 255, 255, 255, 255, 255, 255],
            [255, 0, 1, 255, 4, 5, 255],
            [255, 2, 3, 255, 6, 7, 255],
            [255, 255, 255, 255, 255, 255, 255],
            [255, 8, 9, 255, 255, 255, 255],
            [255, 10, 11, 255, 255, 255, 255],
            [255, 255, 255, 255, 255, 255, 255],
        ]
    ]


def test_tile_keeps_channels_apart() -> None:
    red, green, blue = tile(numbered(2, 3, 1, 2), columns=2, gap=1).tolist()
    white = [255] * 7
    assert red == [white, [255, 0, 1, 255, 6, 7, 255], white]
    assert green == [white, [255, 2, 3, 255, 8, 9, 255], white]
    assert blue == [white, [255, 4, 5, 255, 10, 11, 255], white]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [(42, 7, (6 * 30 + 2, 7 * 14 + 2)), (3, 8, (32, 3 * 14 + 2)), (9, 8, (62, 8 * 14 + 2)), (1, 1, (28, 12))],
)
def test_tile_has_no_more_columns_than_images(count: int, columns: int, shape: tuple[int, int], channels: int) -> None:
    assert tile(torch.zeros(count, channels, 28, 12, dtype=torch.uint8), columns).shape == (channels, *shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_tile_keeps_dtype_and_every_pixel(channels: int) -> None:
    shape, generator = (6, channels, 28, 40), torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, shape, dtype=torch.uint8, generator=generator)
    picture = tile(images, 3)
    assert picture.dtype is torch.uint8
    for index in range(6):
        top, left = 2 + index // 3 * 30, 2 + index % 3 * 42
        assert torch.equal(picture[:, top : top + 28, left : left + 40], images[index])
    assert (picture == 255).sum() == picture.numel() - images.numel()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_image_png_enlarges_every_pixel(channels: int, mode: str) -> None:
    image = numbered(channels, 2, 3)
    picture = Image.open(io.BytesIO(image_png(image, scale=4)))
    assert (picture.format, picture.mode, picture.size) == ("PNG", mode, (12, 8))
    seen = np.asarray(picture).reshape(8, 12, channels)
    for channel in range(channels):
        enlarged = np.kron(image[channel].numpy(), np.ones((4, 4), dtype=np.uint8))
        assert np.array_equal(seen[..., channel], enlarged)
    assert image_png(image, scale=4) == image_png(image, scale=4)


def test_text_rows_are_as_high_as_told_and_flush_right() -> None:
    image = text_rows(["I", "", "III"], 40)
    assert (image.dtype, image.shape[:2]) == (torch.uint8, (1, 120))
    assert torch.equal(image, text_rows(["I", "", "III"], 40))
    dark = image[0] < 128
    assert not dark[40:80].any()
    for row in (dark[:40], dark[80:]):
        down, across = row.nonzero().T
        assert abs(down.min() + down.max() - 39) <= 4, "in the middle"
        assert image.shape[2] - MARGIN - 3 <= across.max() < image.shape[2] - MARGIN
    assert dark[80:].sum() == 3 * dark[:40].sum()


def test_text_fits_low_rows() -> None:
    low = text_rows(["Ég"] * 2, 10)[0]
    assert (low[:10] == low[10:]).all()
    assert (low[[0, 10]] == 255).all()


@pytest.mark.parametrize(
    ("name", "short"),
    [("cat", "cat"), ("a  b\n", "a b"), ("x" * 20, "x" * 20), ("x" * 21, "x" * 19 + "…"), ("y " * 50, "y " * 9 + "y…")],
)
def test_long_names_end_in_an_ellipsis(name: str, short: str) -> None:
    assert shortened(name) == short


def gif_frames(data: bytes) -> list[tuple[np.ndarray, int]]:
    """Colours (H, W, 3) and milliseconds of every frame."""
    picture = Image.open(io.BytesIO(data))
    frames = []
    for index in range(picture.n_frames):
        picture.seek(index)
        frames.append((np.asarray(picture.convert("RGB")), picture.info["duration"]))
    return frames


def even(*colour: int, side: int = 3) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(-1, side, side + 1)


@pytest.mark.parametrize(
    "colours",
    [[(0,), (100,), (200,), (255,)], [(0, 0, 0), (200, 30, 7), (7, 30, 200), (255, 255, 255)]],
    ids=["grey", "colour"],
)
def test_image_gif_keeps_frames_and_durations(colours: list[tuple[int, ...]]) -> None:
    frames = [even(*colour) for colour in colours]
    data = image_gif(frames, scale=2)
    decoded = gif_frames(data)
    assert [milliseconds for _, milliseconds in decoded] == [200, 200, 200, 2000]
    for (seen, _), colour in zip(decoded, colours, strict=True):
        assert np.array_equal(seen, np.broadcast_to(colour, (6, 8, 3)))
    assert Image.open(io.BytesIO(data)).info["loop"] == 0
    assert data == image_gif(frames, scale=2)


def test_each_frame_has_the_colours_that_it_needs() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).expand(256, 256)
    noise = torch.randint(256, (3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames = [noise, torch.stack([ramp, 255 - ramp, ramp // 2])]
    decoded = gif_frames(image_gif(frames, scale=1))
    for (seen, _), frame, error in zip(decoded, frames, (30, 3), strict=True):
        assert np.abs(seen - frame.permute(1, 2, 0).numpy().astype(int)).mean() < error


def test_image_gif_takes_other_durations() -> None:
    frames = [even(0), even(100)]
    assert [duration for _, duration in gif_frames(image_gif(frames, 1, milliseconds=50, hold=500))] == [50, 500]


def test_image_gif_of_one_frame_is_a_picture() -> None:
    ((seen, milliseconds),) = gif_frames(image_gif([even(7, side=2)], scale=3))
    assert np.array_equal(seen, np.full((6, 9, 3), 7))
    assert milliseconds == 2000
