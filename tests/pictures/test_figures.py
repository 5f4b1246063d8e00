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

from ddpm.pictures.figures import DPI, LONGEST, MOST_NAMES, class_histogram, image_table, to_png


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def numbered(*shape: int) -> torch.Tensor:
    """Images of distinct values."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)


def test_image_table_shows_each_image_unscaled_at_its_place() -> None:
    images = numbered(2, 3, 1, 4, 4)
    figure = image_table(images, ["a", "b"], "all of them")
    assert len(figure.axes) == 6
    for index, axis in enumerate(figure.axes):
        (shown,) = axis.images
        assert np.array_equal(shown.get_array(), images.flatten(0, 2)[index].numpy())
        assert (shown.norm.vmin, shown.norm.vmax) == (0, 255)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", "", "", ""]
    assert figure.get_suptitle() == "all of them"
    plt.close(figure)


def test_image_table_shows_colours() -> None:
    images = numbered(1, 2, 3, 4, 5)
    for axis, image in zip(image_table(images).axes, images[0], strict=True):
        assert np.array_equal(axis.images[0].get_array(), image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (28, 28, (7.5, 2.0)),
        (128, 128, (7.5, 2.0)),
        (128, 112, (6.5625, 2.0)),
        (12, 24, (7.5, 1.25)),
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
    assert [bar.get_width() for bar in bars] == pytest.approx([0.4] * 4)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["samples", "images"]
    plt.close(figure)


def tick_labels(classes: int, names: list[str]) -> tuple[list[str], float, list[float]]:
    """The labels, their angle, and the figure's size."""
    figure = class_histogram({"samples": [1 / classes] * classes}, "classes", names)
    labels = figure.axes[0].get_xticklabels()
    return [label.get_text() for label in labels], labels[0].get_rotation(), [*figure.get_size_inches()]


def test_long_names_stand_aslant_and_are_cut() -> None:
    names = ["$a$ is no formula $b$", "a cat", *"abcdefgh"]
    labels, angle, size = tick_labels(10, names)
    assert labels == ["$a$ is no formula $…", "a cat", *"abcdefgh"]
    assert angle == 60
    assert size == pytest.approx([6, 3 + 0.06 * LONGEST])


@pytest.mark.parametrize(("classes", "width"), [(1, 6), (20, 6), (50, 8), (100, 16), (1000, 16)])
def test_a_histogram_of_many_classes_has_bounds(classes: int, width: float) -> None:
    numbers, _, size = tick_labels(classes, [str(index) for index in range(classes)])
    assert numbers == [str(index) for index in range(0, classes, max(1, classes // MOST_NAMES))]
    assert size[0] == pytest.approx(width)
    names, _, size = tick_labels(classes, [f"class {index}" for index in range(classes)])
    assert names == [f"class {index}" for index in range(0, classes, max(1, classes // MOST_NAMES))]
    assert size[0] == pytest.approx(width)


def table() -> Figure:
    return image_table(numbered(1, 2, 3, 4, 4), ["left", "right"], "title")


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
        "import sys, ddpm.pictures.figures as f; "
        "sys.stdout.buffer.write(f.to_png(f.class_histogram({'a': [1.0]}, 'title', ['b'])))"
    )
    command, source = [sys.executable, "-c", code], Path(__file__).parents[2] / "src"
    drawn = subprocess.run(command, env=os.environ | settings, cwd=source, check=True, stdout=subprocess.PIPE)
    assert drawn.stdout == to_png(class_histogram({"a": [1.0]}, "title", ["b"]))
