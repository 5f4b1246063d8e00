import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from ddpm.scoring.figures import DPI, class_histogram, image_gif, image_png, image_table, tile, to_png


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def numbered(*shape: int) -> torch.Tensor:
    """Images of distinct values."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)


def test_tile_lays_out_row_by_row_with_white_between() -> None:
    images = numbered(3, 2, 2)  # 0..3, 4..7, 8..11
    assert tile(images, columns=2, gap=1).tolist() == [
        [255, 255, 255, 255, 255, 255, 255],
        [255, 0, 1, 255, 4, 5, 255],
        [255, 2, 3, 255, 6, 7, 255],
        [255, 255, 255, 255, 255, 255, 255],
        [255, 8, 9, 255, 255, 255, 255],
        [255, 10, 11, 255, 255, 255, 255],
        [255, 255, 255, 255, 255, 255, 255],
    ]


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [(42, 7, (6 * 30 + 2, 7 * 30 + 2)), (3, 8, (32, 3 * 30 + 2)), (9, 8, (62, 8 * 30 + 2)), (1, 1, (28, 28))],
)
def test_tile_has_no_more_columns_than_images(count: int, columns: int, shape: tuple[int, int]) -> None:
    assert tile(torch.zeros(count, 28, 28, dtype=torch.uint8), columns).shape == shape


def test_tile_keeps_dtype_and_every_pixel() -> None:
    images = torch.randint(0, 255, (6, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = tile(images, 3)
    assert picture.dtype is torch.uint8
    for index in range(6):
        top, left = 2 + index // 3 * 30, 2 + index % 3 * 30
        assert torch.equal(picture[top : top + 28, left : left + 28], images[index])
    assert (picture == 255).sum() == picture.numel() - images.numel()


def test_image_table_shows_each_image_unscaled_at_its_place() -> None:
    images = numbered(2, 3, 4, 4)
    figure = image_table(images, ["a", "b"], "all of them")
    assert len(figure.axes) == 6
    for index, axis in enumerate(figure.axes):
        (shown,) = axis.images
        assert np.array_equal(shown.get_array(), images.flatten(0, 1)[index].numpy())
        assert (shown.norm.vmin, shown.norm.vmax) == (0, 255)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", "", "", ""]
    assert figure.get_suptitle() == "all of them"
    plt.close(figure)


def test_class_histogram_draws_percentages_side_by_side() -> None:
    figure = class_histogram({"samples": [0.25, 0.75], "images": [0.5, 0.5]}, "classes")
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [25, 75, 50, 50]
    assert [bar.get_x() for bar in bars] == pytest.approx([-0.4, 0.6, 0.0, 1.0])
    assert [bar.get_width() for bar in bars] == pytest.approx([0.4] * 4)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["samples", "images"]
    plt.close(figure)


def table() -> Figure:
    return image_table(numbered(1, 2, 4, 4), ["left", "right"], "title")


def test_equal_figures_give_equal_png_bytes() -> None:
    assert to_png(table()) == to_png(table())


def test_to_png_is_decodable_and_closes_the_figure() -> None:
    before = plt.get_fignums()
    picture = opened(to_png(table()))
    assert picture.format == "PNG"
    assert picture.size == (int(1.5 * DPI), int(1.25 * DPI))
    assert plt.get_fignums() == before


def test_to_png_carries_no_date() -> None:
    assert set(opened(to_png(table())).info) <= {"Software", "dpi"}


def test_a_users_own_settings_of_matplotlib_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.family: serif\nbackend: qtagg\n")
    settings = {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://a_notebooks.own"}
    code = (
        "import sys, ddpm.scoring.figures as f; "
        "sys.stdout.buffer.write(f.to_png(f.class_histogram({'a': [1.0]}, 'title')))"
    )
    command, source = [sys.executable, "-c", code], Path(__file__).parents[2] / "src"
    drawn = subprocess.run(command, env=os.environ | settings, cwd=source, check=True, stdout=subprocess.PIPE)
    assert drawn.stdout == to_png(class_histogram({"a": [1.0]}, "title"))


def test_image_png_enlarges_every_pixel() -> None:
    image = numbered(2, 3)
    picture = opened(image_png(image, scale=4))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (12, 8))
    assert np.array_equal(np.asarray(picture), np.kron(image.numpy(), np.ones((4, 4), dtype=np.uint8)))
    assert image_png(image, scale=4) == image_png(image, scale=4)


def gif_frames(data: bytes) -> list[tuple[np.ndarray, int]]:
    """Grey values and milliseconds of every frame."""
    picture = Image.open(io.BytesIO(data))
    frames = []
    for index in range(picture.n_frames):
        picture.seek(index)
        frames.append((np.asarray(picture.convert("L")), picture.info["duration"]))
    return frames


def test_image_gif_keeps_frames_and_durations() -> None:
    frames = [torch.full((3, 3), value, dtype=torch.uint8) for value in (0, 100, 200, 255)]
    data = image_gif(frames, scale=2)
    decoded = gif_frames(data)
    assert [milliseconds for _, milliseconds in decoded] == [200, 200, 200, 2000]
    for (seen, _), frame in zip(decoded, frames, strict=True):
        assert np.array_equal(seen, np.full((6, 6), frame[0, 0]))
    assert Image.open(io.BytesIO(data)).info["loop"] == 0
    assert data == image_gif(frames, scale=2)


def test_image_gif_takes_other_durations() -> None:
    frames = [torch.full((3, 3), value, dtype=torch.uint8) for value in (0, 100)]
    assert [duration for _, duration in gif_frames(image_gif(frames, 1, milliseconds=50, hold=500))] == [50, 500]


def test_image_gif_of_one_frame_is_a_picture() -> None:
    ((seen, milliseconds),) = gif_frames(image_gif([torch.full((2, 2), 7, dtype=torch.uint8)], scale=3))
    assert np.array_equal(seen, np.full((6, 6), 7))
    assert milliseconds == 2000
