"""Figures, tables of images, text and encoded pictures."""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.pictures.figures import (
    DPI,
    class_histogram,
    class_label,
    image_gif,
    image_table,
    to_png,
)


def numbered(*shape: int) -> torch.Tensor:
    """Images of distinct values."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_table_shows_each_image_unscaled_at_its_place(channels: int) -> None:
    images = numbered(2, 3, channels, 4, 4)
    figure = image_table(images, ["a", "b"], "all of them")
    assert len(figure.axes) == 6
    for axis, image in zip(figure.axes, images.flatten(0, 1), strict=True):
        (shown,) = axis.images
        assert np.array_equal(shown.get_array(), image.permute(1, 2, 0).squeeze(2).numpy())
        assert (shown.norm.vmin, shown.norm.vmax) == (0, 255)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", "", "", ""]
    assert figure.get_suptitle() == "all of them"
    title = "a title longer than one column is wide"
    for table in (image_table(images[:, :1], ["a"], title), image_table(images, ["a"], f"{title}\n{title}")):
        extent = table.texts[0].get_window_extent()
        assert 0 < extent.x0 < extent.x1 < table.bbox.width


def test_class_histogram_draws_percentages_side_by_side() -> None:
    figure = class_histogram({"samples": [0.25, 0.75], "images": [0.5, 0.5]}, "classes", ["a", "b"])
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [25, 75, 50, 50]
    assert [bar.get_x() for bar in bars] == pytest.approx([-0.4, 0.6, 0.0, 1.0])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["samples", "images"]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("cat", "cat"),
        ("Äffchen", "Äffchen"),
        ("猫", "class 1"),
        ("apple 🍎", "class 1"),
        ("x" * 19 + "y猫", "x" * 19 + "…"),
    ],
)
def test_a_class_whose_name_the_font_cannot_write_has_its_number(name: str, written: str) -> None:
    assert class_label(["dog", name], 1) == written
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = to_png(class_histogram({"samples": [0.5, 0.5]}, "classes", ["dog", name]))
    assert picture == to_png(class_histogram({"samples": [0.5, 0.5]}, "classes", ["dog", written]))


def test_equal_figures_give_equal_png_bytes_without_a_date() -> None:
    tables = [to_png(image_table(numbered(1, 2, 3, 4, 4), ["left", "right"], "title")) for _ in range(2)]
    picture = Image.open(io.BytesIO(tables[0]))
    assert tables[0] == tables[1]
    assert picture.size == (int(1.5 * DPI), int(1.25 * DPI))
    assert set(picture.info) <= {"Software", "dpi"}


def test_a_users_own_settings_of_matplotlib_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.family: serif\nbackend: qtagg\n")
    settings = {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://a_notebooks.own"}
    code = (
        "import sys, ddpm.pictures.figures as f; "
        "sys.stdout.buffer.write(f.to_png(f.class_histogram({'a': [1.0]}, 'title', ['b'])))"
    )
    command, source = [sys.executable, "-c", code], Path(__file__).parents[2] / "src"
    drawn = subprocess.run(command, env=os.environ | settings, cwd=source, check=True, stdout=subprocess.PIPE)
    assert drawn.stdout == to_png(class_histogram({"a": [1.0]}, "title", ["b"]))


@pytest.mark.parametrize("colours", [[(0,), (100,)], [(200, 30, 7), (7, 30, 200)]], ids=["grey", "colour"])
def test_image_gif_keeps_frames_and_durations(colours: list[tuple[int, ...]]) -> None:
    frames = [torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(-1, 3, 4) for colour in colours]
    data = image_gif(frames, scale=2)
    assert data == image_gif(frames, scale=2)
    picture = Image.open(io.BytesIO(data))
    assert (picture.n_frames, picture.info["loop"]) == (2, 0)
    for index, (colour, milliseconds) in enumerate(zip(colours, (200, 2000), strict=True)):
        picture.seek(index)
        assert picture.info["duration"] == milliseconds
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.broadcast_to(colour, (6, 8, 3)))
