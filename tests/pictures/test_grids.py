"""The pictures of a set of samples."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.pictures.figures import FONT, text_rows
from ddpm.pictures.grids import by_class_picture, caption_of, gallery_pictures

CAPTION = 2 * FONT  # the pixels of its height


def images(*shape: int) -> Tensor:
    return torch.randint(255, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def pixels(data: bytes) -> Tensor:
    """(C, H, W)."""
    picture = opened(data)
    array = np.array(picture).reshape(picture.height, picture.width, -1)
    return torch.from_numpy(array).permute(2, 0, 1)


def under(picture: Tensor, caption: str) -> Tensor:
    """What stands above the caption of a picture (C, H, W), which is checked."""
    text = text_rows([caption], CAPTION)
    assert torch.equal(picture[:, -CAPTION:, : text.shape[2]], text.expand(len(picture), -1, -1))
    return picture[:, :-CAPTION]


def rows_of(picture: Tensor, names: list[str]) -> Tensor:
    """Images (rows, columns, C, 28, 28) of a picture by class, whose left part is checked to have the names."""
    text = text_rows(names, 120)
    width = text.shape[2]
    assert torch.equal(picture[:, 4:-4, :width], text.expand(len(picture), -1, -1))
    cells = picture[:, 10::4, width + 10 :: 4]  # the second of the four pixels, behind the first gap
    return cells.unfold(1, 28, 30).unfold(2, 28, 30).permute(1, 2, 0, 3, 4)


@pytest.mark.parametrize(
    ("shape", "scale", "gap", "animated"),
    [((1, 28, 28), 4, 2, (8, 8)), ((1, 12, 40), 3, 3, (6, 6)), ((3, 128, 96), 1, 9, (2, 2))],
    ids=str,
)
def test_gallery_pictures_have_all_images_but_an_animation_of_large_ones(
    shape: tuple[int, int, int], scale: int, gap: int, animated: tuple[int, int]
) -> None:
    sampled, frames = images(64, *shape), images(3, 64, *shape)
    pictures = gallery_pictures(sampled, frames, frames.flip(0), [20, 10, 0], "ddpm")
    assert sorted(pictures) == ["denoising.png", "reverse.gif", "samples.png"]
    channels, height, width = shape
    animation = opened(pictures["reverse.gif"])
    assert animation.size == (2 * (animated[0] * (width + gap) + gap), animated[1] * (height + gap) + gap + CAPTION)
    assert animation.n_frames == 3
    grid = under(pixels(pictures["samples.png"]), "ddpm")
    down, across = scale * (height + gap), scale * (width + gap)
    assert grid.shape == (channels, 6 * down + scale * gap, 7 * across + scale * gap)
    for index in (0, 6, 7, 41):
        top, left = scale * gap + index // 7 * down, scale * gap + index % 7 * across
        cell = grid[:, top : top + scale * height : scale, left : left + scale * width : scale]
        assert torch.equal(cell, sampled[index])


@pytest.mark.parametrize("channels", [1, 3])
def test_by_class_has_a_named_row_for_each_class_filled_with_white(channels: int) -> None:
    sampled, labels = images(15, channels, 28, 28), torch.tensor([2] * 12 + [0] * 3)
    names = ["猫", "dog", "a bird with a long tail"]
    picture = under(pixels(by_class_picture(sampled, labels, names, "ddpm", {"猫": 0.5, names[2]: 0.63})), "ddpm")
    rows = rows_of(picture, ["class 0: 50% clear", "a bird with a long…: 63% clear"])
    assert torch.equal(rows[1], sampled[:10])
    assert torch.equal(rows[0, :3], sampled[12:])
    assert (rows[0, 3:] == 255).all()


def test_a_caption_says_how_samples_were_made() -> None:
    made = {"set": "gallery", "sampler": "ddpm", "evaluations": 1000, "guidance": 1.0}
    assert caption_of(made) == "gallery: ddpm, 1,000 evaluations, no guidance, unfiltered"
    made = {"set": "population", "sampler": "dpmpp_2m", "evaluations": 1, "guidance": 1.25, "kept": 0.98}
    assert caption_of(made) == "population: dpmpp_2m, 1 evaluation, guidance 1.25, filtered: 98.0% kept"
