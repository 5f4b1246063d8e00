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
    LONGEST,
    MARGIN,
    MOST_NAMES,
    class_histogram,
    class_label,
    image_gif,
    image_png,
    image_table,
    shortened,
    text_rows,
    tile,
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


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (28, 28, (7.5, 2.0)),
        (128, 112, (6.5625, 2.0)),
        (40, 12, (5.6, 2.0)),  # titles need the width
        (8, 128, (7.5, 0.9)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_table_s_cells_have_the_images_aspect_ratio(height: int, width: int, size: tuple[float, float]) -> None:
    figure = image_table(torch.zeros(2, 10, 1, height, width, dtype=torch.uint8), ["title"] * 10)
    assert tuple(figure.get_size_inches()) == pytest.approx(size)
    figure.draw_without_rendering()
    box = figure.axes[0].get_window_extent()
    assert box.width / box.height == pytest.approx(width / height)


def test_class_histogram_draws_percentages_side_by_side() -> None:
    figure = class_histogram({"samples": [0.25, 0.75], "images": [0.5, 0.5]}, "classes", ["a", "b"])
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [25, 75, 50, 50]
    assert [bar.get_x() for bar in bars] == pytest.approx([-0.4, 0.6, 0.0, 1.0])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["samples", "images"]


def tick_labels(names: list[str]) -> tuple[list[str], float, list[float]]:
    """The labels, their angle, and the figure's size."""
    figure = class_histogram({"samples": [1 / len(names)] * len(names)}, "classes", names)
    labels = figure.axes[0].get_xticklabels()
    return [label.get_text() for label in labels], labels[0].get_rotation(), [*figure.get_size_inches()]


def test_long_names_stand_aslant_and_are_cut() -> None:
    labels, angle, size = tick_labels(["$a$ is no formula $b$", "a cat", *"abcdefgh"])
    assert labels == ["$a$ is no formula $…", "a cat", *"abcdefgh"]
    assert angle == 60
    assert size == pytest.approx([6, 3 + 0.06 * LONGEST])


@pytest.mark.parametrize(("classes", "width"), [(1, 6), (50, 8), (1000, 16)])
def test_a_histogram_of_many_classes_has_bounds(classes: int, width: float) -> None:
    labels, _, size = tick_labels([f"class {index}" for index in range(classes)])
    assert labels == [f"class {index}" for index in range(0, classes, max(1, classes // MOST_NAMES))]
    assert size[0] == pytest.approx(width)


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


@pytest.mark.parametrize(
    ("name", "short"),
    [("a  b\n", "a b"), ("x" * 20, "x" * 20), ("x" * 21, "x" * 19 + "…"), ("y " * 50, "y " * 9 + "y…")],
)
def test_long_names_end_in_an_ellipsis(name: str, short: str) -> None:
    assert shortened(name) == short


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns", "shape"), [(6, 3, (62, 3 * 42 + 2)), (3, 8, (32, 3 * 42 + 2))])
def test_tile_lays_out_row_by_row_with_white_between(
    count: int, columns: int, shape: tuple[int, int], channels: int
) -> None:
    size, source = (count, channels, 28, 40), torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, size, dtype=torch.uint8, generator=source)
    picture = tile(images, columns)
    assert (picture.dtype, picture.shape) == (torch.uint8, (channels, *shape))
    for index in range(count):
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


def test_text_rows_are_as_high_as_told_and_flush_right() -> None:
    image = text_rows(["I", "", "III"], 40)
    assert (image.dtype, image.shape[:2]) == (torch.uint8, (1, 120))
    dark = image[0] < 128
    assert not dark[40:80].any()
    for row in (dark[:40], dark[80:]):
        down, across = row.nonzero().T
        assert abs(down.min() + down.max() - 39) <= 4, "in the middle"
        assert image.shape[2] - MARGIN - 3 <= across.max() < image.shape[2] - MARGIN
    assert dark[80:].sum() == 3 * dark[:40].sum()
    low = text_rows(["Ég"] * 2, 10)[0]
    assert (low[:10] == low[10:]).all()
    assert (low[[0, 10]] == 255).all()


def gif_frames(data: bytes) -> list[tuple[np.ndarray, int]]:
    """Colours (H, W, 3) and milliseconds of every frame."""
    picture = Image.open(io.BytesIO(data))
    assert picture.info["loop"] == 0
    frames = []
    for index in range(picture.n_frames):
        picture.seek(index)
        frames.append((np.asarray(picture.convert("RGB")), picture.info["duration"]))
    return frames


@pytest.mark.parametrize(
    "colours", [[(0,), (100,), (255,)], [(0, 0, 0), (200, 30, 7), (7, 30, 200)]], ids=["grey", "colour"]
)
def test_image_gif_keeps_frames_and_durations(colours: list[tuple[int, ...]]) -> None:
    frames = [torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(-1, 3, 4) for colour in colours]
    data = image_gif(frames, scale=2)
    decoded = gif_frames(data)
    assert [milliseconds for _, milliseconds in decoded] == [200, 200, 2000]
    for (seen, _), colour in zip(decoded, colours, strict=True):
        assert np.array_equal(seen, np.broadcast_to(colour, (6, 8, 3)))
    assert data == image_gif(frames, scale=2)


def test_each_frame_has_the_colours_that_it_needs() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).expand(256, 256)
    noise = torch.randint(256, (3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames = [noise, torch.stack([ramp, 255 - ramp, ramp // 2])]
    decoded = gif_frames(image_gif(frames, scale=1))
    for (seen, _), frame, error in zip(decoded, frames, (30, 3), strict=True):
        assert np.abs(seen - frame.permute(1, 2, 0).numpy().astype(int)).mean() < error
