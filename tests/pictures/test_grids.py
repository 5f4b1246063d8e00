"""The pictures of a set of samples."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm.pictures.grids import by_class_picture, gallery_pictures


def images(*shape: int) -> Tensor:
    return torch.randint(255, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_gallery_has_all_images_but_its_animation_few_large_ones() -> None:
    for side, scale, gap, moving in ((28, 4, 2, 8), (128, 1, 9, 2)):
        sampled, frames = images(64, 1, side, side), images(3, 64, 1, side, side)
        pictures = gallery_pictures(sampled, frames, frames.flip(0), [20, 10, 0], "ddpm")
        assert sorted(pictures) == ["denoising.png", "reverse.gif", "samples.png"]
        animation = opened(pictures["reverse.gif"])
        assert (animation.n_frames, animation.width) == (3, 2 * (moving * (side + gap) + gap))
        shown = np.asarray(opened(pictures["samples.png"]))[::scale, ::scale]  # without the enlargement
        last = shown[gap + 5 * (side + gap) :, gap + 6 * (side + gap) :][:side, :side]
        assert np.array_equal(last, sampled[41, 0].numpy())


def test_each_class_has_a_row_filled_with_white() -> None:
    sampled, labels = images(15, 3, 28, 28), torch.tensor([2] * 12 + [0] * 3)
    picture = opened(by_class_picture(sampled, labels, ["dog", "none", "bird"], "ddpm", {"dog": 0.5}))
    rows = np.asarray(picture)[8:-8:4, -1200::4]  # the first pixel of each four, behind the first gap
    assert np.array_equal(rows[30:58, 270:298], sampled[9].permute(1, 2, 0).numpy())
    assert np.array_equal(rows[:28, 60:88], sampled[14].permute(1, 2, 0).numpy())
    assert (rows[:28, 90:] == 255).all()
