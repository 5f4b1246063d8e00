"""Figures, tables of images, text, and the pictures of a set of samples."""

import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.pictures.figures import class_label, image_table, to_png
from ddpm.pictures.grids import by_class_picture, preview_pictures
from tests.small import levels


@pytest.mark.parametrize(
    ("name", "written"),
    [("Äffchen", "Äffchen"), ("猫", "class 1"), ("apple 🍎", "class 1"), ("x" * 19 + "y猫", "x" * 19 + "…")],
)
def test_a_class_whose_name_the_font_cannot_write_has_its_number(name: str, written: str) -> None:
    assert class_label(["dog", name], 1) == written


def test_a_users_own_settings_of_matplotlib_change_nothing() -> None:
    given = levels(1, (1, 1, 8, 8)), ["column"], "title"
    expected = to_png(image_table(*given))
    with matplotlib.rc_context({"font.family": "serif", "figure.facecolor": "red"}):
        assert to_png(image_table(*given)) == expected


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_preview_has_all_images_but_its_animation_few_large_ones() -> None:
    for side, scale, gap, moving in ((28, 4, 2, 8), (128, 1, 9, 2)):
        sampled, frames = levels(64, (1, side, side)), levels(3, (64, 1, side, side))
        pictures = preview_pictures(sampled, frames, frames.flip(0), [20, 10, 0], "ddpm")
        assert sorted(pictures) == ["denoising.png", "reverse.gif", "samples.png"]
        animation = opened(pictures["reverse.gif"])
        assert (animation.n_frames, animation.width) == (3, 2 * (moving * (side + gap) + gap))
        shown = np.asarray(opened(pictures["samples.png"]))[::scale, ::scale]  # without the enlargement
        last = shown[gap + 5 * (side + gap) :, gap + 6 * (side + gap) :][:side, :side]
        assert np.array_equal(last, sampled[41, 0].numpy())


def test_each_class_has_a_row_filled_with_white() -> None:
    sampled, labels = levels(15, (3, 28, 28)), torch.tensor([2] * 12 + [0] * 3)
    picture = opened(by_class_picture(sampled, labels, ["dog", "none", "bird"], "ddpm", {"dog": 0.5}))
    rows = np.asarray(picture)[8:-8:4, -1200::4]  # the first pixel of each four, behind the first gap
    assert np.array_equal(rows[30:58, 270:298], sampled[9].permute(1, 2, 0).numpy())
    assert np.array_equal(rows[:28, 60:88], sampled[14].permute(1, 2, 0).numpy())
    assert (rows[:28, 90:] == 255).all()
