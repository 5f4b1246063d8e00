"""Figures, tables of images, text and encoded pictures."""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm.pictures.figures import class_histogram, class_label, image_table, to_png


def numbered(*shape: int) -> torch.Tensor:
    """Images of distinct values."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)


@pytest.mark.parametrize(
    ("name", "written"),
    [
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
        to_png(class_histogram({"samples": [0.5, 0.5]}, "classes", ["dog", name]))


def test_equal_figures_give_equal_png_bytes_without_a_date() -> None:
    tables = [to_png(image_table(numbered(1, 2, 3, 4, 4), ["left", "right"], "title")) for _ in range(2)]
    assert tables[0] == tables[1]
    assert set(Image.open(io.BytesIO(tables[0])).info) <= {"Software", "dpi"}


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
