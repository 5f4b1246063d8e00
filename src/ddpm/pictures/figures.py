"""Turn tensors into matplotlib figures and encoded pictures; no file is touched here.

Images are uint8; their first axis is the channels: 1 (grey) or 3 (colour).

Figures use matplotlib's default style, whatever the user's settings. They avoid pyplot, which may use a notebook's
backend. Neither is changed for other code.
"""

import functools
import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

DPI = 150
CELL = 0.75  # inches
NARROWEST, LOWEST = 0.56, 0.2  # inches of a cell; a column's title fits
LETTER, LINE = 0.07, 0.16  # inches of a title's letter and line
LONGEST = 20
FONT, MARGIN = 16, 6  # pixels
PALETTE_FROM = 128  # pixels a side
FONT_FILE = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"  # part of matplotlib: the same everywhere
_default_style = style.context("default", after_reset=True)


@_default_style
def image_table(images: Tensor, column_titles: Sequence[str] = (), title: str = "") -> Figure:
    """Draw images (rows, columns, C, H, W) as a table with titled columns."""
    rows, columns, _, height, width = images.shape
    longer = max(height, width)
    across, down = max(CELL * width / longer, NARROWEST), max(CELL * height / longer, LOWEST)
    lines = title.split("\n")
    wide = max(across * columns, LETTER * max(map(len, lines)))
    figure = Figure(figsize=(wide, down * rows + 0.34 + LINE * len(lines)))
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        for column in range(columns):
            _show(axes[row, column], images[row, column])
    for axis, text in zip(axes[0], column_titles, strict=False):
        axis.set_title(text, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    return figure


@_default_style
def to_png(figure: Figure) -> bytes:
    """Encode a figure; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def image_png(image: Tensor, scale: int) -> bytes:
    """Encode an image (C, H, W) as PNG, each pixel enlarged to scale x scale."""
    buffer = io.BytesIO()
    _picture(enlarged(image, scale)).save(buffer, "PNG")
    return buffer.getvalue()


def image_gif(frames: Sequence[Tensor], scale: int, milliseconds: int = 200, hold: int = 2000) -> bytes:
    """Encode frames (C, H, W) as an endless GIF, each pixel enlarged to scale x scale; the last stays `hold` ms."""
    first, *others = [_paletted(_picture(enlarged(frame, scale))) for frame in frames]
    durations = [milliseconds] * len(others) + [hold]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return buffer.getvalue()


def tile(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Arrange images (N, C, H, W) as one (C, H, W), row by row, with white gaps; the last row may be short."""
    return make_grid(images, nrow=columns, padding=gap, pad_value=255)[: images.shape[1]]  # grey becomes colour there


def enlarged(image: Tensor, scale: int) -> Tensor:
    """Repeat each pixel of an image (C, H, W) scale x scale times."""
    return image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def text_rows(lines: Sequence[str], height: int) -> Tensor:
    """Write lines in black on white as a grey image (1, H, W): each `height` pixels high, right-aligned."""
    font = ImageFont.truetype(str(FONT_FILE), min(FONT, int(0.85 * height)), layout_engine=ImageFont.Layout.BASIC)
    width = math.ceil(max(font.getlength(line) for line in lines)) + 2 * MARGIN
    picture = Image.new("L", (width, len(lines) * height), 255)
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        draw.text((width - MARGIN, (index + 0.5) * height), line, fill=0, font=font, anchor="rm")
    return torch.from_numpy(np.array(picture)).unsqueeze(0)


def captioned(picture: Tensor, caption: str) -> Tensor:
    """Write a caption in black on white below an image (C, H, W), which becomes as wide as the caption."""
    text = text_rows([caption], 2 * FONT).expand(len(picture), -1, -1)
    width = max(picture.shape[2], text.shape[2])
    return torch.cat([F.pad(each, (0, width - each.shape[2]), value=255) for each in (picture, text)], dim=1)


def class_label(names: Sequence[str], label: int) -> str:
    """Name a class in at most LONGEST characters, or give its number where the font lacks a character of the name."""
    name = " ".join(names[label].split())
    name = name if len(name) <= LONGEST else name[: LONGEST - 1].rstrip() + "…"
    return name if all(ord(letter) in _characters() for letter in name) else f"class {label}"


@functools.cache
def _characters() -> frozenset[int]:
    """Return the code points that the font can write."""
    return frozenset(FT2Font(str(FONT_FILE)).get_charmap())


def _show(axis: Axes, image: Tensor) -> None:
    array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    axis.imshow(array, cmap="gray", vmin=0, vmax=255)
    axis.set_axis_off()


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def _paletted(picture: Image.Image) -> Image.Image:
    """Reduce a colour picture to 256 colours of its own, as GIF needs.

    Median cut alone, Pillow's default, shifts hues. K-means corrects this, but takes minutes on all pixels.
    """
    if picture.mode == "L":
        return picture
    few = picture.resize(
        (min(picture.width, PALETTE_FROM), min(picture.height, PALETTE_FROM)), Image.Resampling.NEAREST
    )
    colours = few.quantize(256, Image.Quantize.MEDIANCUT, kmeans=100)
    return picture.quantize(palette=colours, dither=Image.Dither.NONE)
