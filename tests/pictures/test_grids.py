import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.pictures.figures import FONT, text_rows
from ddpm.pictures.grids import (
    by_class_picture,
    classes_picture,
    enlargement,
    gallery_pictures,
    neighbours_picture,
    spacing,
)

NUMBERS = [*"0123456789"]
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 128, 96), (1, 12, 40)]


def images(*shape: int) -> Tensor:
    return torch.randint(255, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def pixels(data: bytes) -> Tensor:
    """(C, H, W)."""
    picture = opened(data)
    array = np.array(picture).reshape(picture.height, picture.width, -1)
    return torch.from_numpy(array).permute(2, 0, 1)


def by_row(picture: Tensor, side: int) -> Tensor:
    """Images (rows, columns, C, side, side) of a picture of them, each pixel four times as large, gaps of 2 pixels."""
    cells = picture[:, 10::4, 10::4]  # the second of the four pixels, behind the first gap
    return cells.unfold(1, side, side + 2).unfold(2, side, side + 2).permute(1, 2, 0, 3, 4)


@pytest.mark.parametrize(
    ("height", "width", "still", "moving", "gap"),
    [
        (28, 28, 4, 1, 2),
        (32, 32, 4, 1, 2),
        (8, 8, 14, 4, 1),
        (12, 40, 3, 1, 3),
        (64, 64, 2, 1, 5),
        (128, 96, 1, 1, 9),
        (8, 128, 1, 1, 9),
    ],
)
def test_images_of_any_size_are_shown_about_as_large(
    height: int, width: int, still: int, moving: int, gap: int
) -> None:
    image = torch.empty(2, 1, height, width)
    assert (enlargement(image, 112), enlargement(image, 28), spacing(image)) == (still, moving, gap)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gallery_pictures_have_all_images(shape: tuple[int, int, int]) -> None:
    drawn, frames = images(64, *shape), images(3, 64, *shape)
    pictures = gallery_pictures(drawn, frames, frames.flip(0), [20, 10, 0])
    assert sorted(pictures) == ["denoising.png", "reverse.gif", "samples.png"]
    scale, gap = enlargement(drawn, 112), spacing(drawn)
    channels, height, width = shape
    grid = pixels(pictures["samples.png"])
    down, across = scale * (height + gap), scale * (width + gap)
    assert grid.shape == (channels, 6 * down + scale * gap, 7 * across + scale * gap)
    for index in (0, 6, 7, 41):
        top, left = scale * gap + index // 7 * down, scale * gap + index % 7 * across
        cell = grid[:, top : top + scale * height : scale, left : left + scale * width : scale]
        assert torch.equal(cell, drawn[index])


@pytest.mark.parametrize(
    ("shape", "columns", "rows"), [((1, 28, 28), 8, 9), ((1, 64, 8), 8, 9), ((3, 128, 96), 4, 4)], ids=str
)
def test_the_animation_has_all_images_but_for_large_ones(shape: tuple[int, ...], columns: int, rows: int) -> None:
    frames = images(2, 65, *shape)
    _, height, width = shape
    gap = spacing(frames)
    animation = opened(gallery_pictures(frames[0], frames, frames, [10, 0])["reverse.gif"])
    assert animation.size == (2 * (columns * (width + gap) + gap), rows * (height + gap) + gap)
    assert animation.n_frames == 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neighbours_are_found_in_the_images_levels(shape: tuple[int, int, int]) -> None:
    train = images(12, *shape)
    once = neighbours_picture(train[:3], train)
    assert opened(once).format == "PNG"
    assert once == neighbours_picture(train[:3], torch.cat([train, 255 - train]))
    assert once != neighbours_picture(train[:3], train[1:])


def beside_names(picture: bytes, rows: int, height: int) -> Tensor:
    """The pixels of a picture by class without its so many names, which are digits, of rows of so many pixels."""
    return pixels(picture)[:, :, text_rows(["0"] * rows, height).shape[2] :]


def test_by_class_has_a_row_for_each_class() -> None:
    drawn, labels = images(25, 3, 28, 28), torch.tensor([5] * 12 + [2] * 13)
    rows = by_row(beside_names(by_class_picture(drawn, labels, NUMBERS), 2, 120), 28)
    assert torch.equal(rows, torch.stack([drawn[12:22], drawn[:10]]))


def test_by_class_fills_rows_with_white() -> None:
    drawn = images(3, 1, 28, 28)
    rows = by_row(beside_names(by_class_picture(drawn, torch.tensor([1, 0, 1]), NUMBERS), 2, 120), 28)
    assert torch.equal(rows[0, :1], drawn[1:2])
    assert torch.equal(rows[1, :2], drawn[[0, 2]])
    assert (rows[0, 1:] == 255).all()
    assert (rows[1, 2:] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_by_class_names_its_rows(channels: int) -> None:
    drawn, labels = images(4, channels, 28, 28), torch.tensor([0, 2, 2, 2])
    without = beside_names(by_class_picture(drawn, labels, NUMBERS), 2, 120)
    named = pixels(by_class_picture(drawn, labels, ["cat", "dog", "a bird with a long tail"]))
    text = text_rows(["cat", "a bird with a long…"], 120)
    width = text.shape[2]
    assert torch.equal(named[:, :, width:], without)
    assert torch.equal(named[:, 4:-4, :width], text.expand(channels, -1, -1))
    assert (named[:, :4, :width] == 255).all()
    assert (named[:, -4:, :width] == 255).all()


@pytest.mark.parametrize("word", ["", "class "], ids=["numbers", "names"])
def test_by_class_has_rows_for_at_most_twenty_classes(word: str) -> None:
    names = [f"{word}{label}" for label in range(100)]
    drawn = images(200, 1, 8, 8)
    picture = pixels(by_class_picture(drawn, torch.arange(200) % 100, names))
    twenty = pixels(by_class_picture(drawn[:20], torch.arange(20), names))
    text = text_rows(["and 80 more"], 2 * FONT)
    assert picture.shape == (1, twenty.shape[1] + 32, twenty.shape[2])
    assert torch.equal(picture[:, -32:, : text.shape[2]], text)
    assert (picture[:, -32:, text.shape[2] :] == 255).all()


def test_the_last_line_fits_below_narrow_images() -> None:
    picture = pixels(by_class_picture(images(22, 1, 128, 8), torch.arange(22), [*"abcdefghijklmnopqrstuv"]))
    assert picture.shape == (1, 20 * 137 + 9 + 32, 10 * 17 + 9 + text_rows([*"abcdefghijklmnopqrst"], 137).shape[2])


def test_classes_picture_has_all_classes_and_their_names() -> None:
    labels = torch.tensor([0, 1, 1])
    three = classes_picture(labels, labels, ["0", "1", "2"])
    assert three == classes_picture(labels, labels, ["0", "1", "2"])
    assert three != classes_picture(labels, labels, ["0", "1", "2", "3"])
    assert three != classes_picture(labels, labels, ["0", "1", "two"])
