"""Tensors in, matplotlib figures and encoded pictures out; no file is touched here.

Figures are drawn and encoded in matplotlib's default style, whatever the user's own settings, and without pyplot, whose
backend may be a notebook's; neither is changed for anyone else.
"""

import io
from collections.abc import Mapping, Sequence

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

DPI = 150
_default_style = style.context("default", after_reset=True)


@_default_style
def image_table(images: Tensor, column_titles: Sequence[str] = (), title: str = "") -> Figure:
    """Grey images, uint8 (rows, columns, 28, 28), in a table with titled columns."""
    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.75 * columns, 0.75 * rows + 0.5))
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
def class_histogram(shares: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Bars for the share of each class, one colour for each named series of shares."""
    figure = Figure(figsize=(6, 3))
    axis = figure.subplots()
    width = 0.8 / len(shares)
    for index, (name, values) in enumerate(shares.items()):
        places = [label + (index - (len(shares) - 1) / 2) * width for label in range(len(values))]
        axis.bar(places, [100 * value for value in values], width, label=name)
    axis.set(title=title, xlabel="class", ylabel="share of the images in %", xticks=range(len(values)))
    axis.margins(y=0.25)  # room for the legend
    axis.legend(loc="upper center", ncols=len(shares), frameon=False)
    figure.tight_layout()
    return figure


@_default_style
def to_png(figure: Figure) -> bytes:
    """Encode a figure; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def image_png(image: Tensor, scale: int) -> bytes:
    """A uint8 image (H, W), each pixel enlarged to scale x scale."""
    buffer = io.BytesIO()
    _enlarged(image, scale).save(buffer, "PNG")
    return buffer.getvalue()


def image_gif(frames: Sequence[Tensor], scale: int, milliseconds: int = 200, hold: int = 2000) -> bytes:
    """An endless animation of uint8 frames (H, W), enlarged likewise; the last one stays for `hold` milliseconds."""
    first, *others = [_enlarged(frame, scale) for frame in frames]
    durations = [milliseconds] * len(others) + [hold]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return buffer.getvalue()


def tile(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Lay uint8 images (N, 28, 28) out as one picture (H, W), row by row, white between; the last row may be short."""
    return make_grid(images.unsqueeze(1), nrow=columns, padding=gap, pad_value=255)[0]


def _show(axis: Axes, image: Tensor) -> None:
    axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_axis_off()


def _enlarged(image: Tensor, scale: int) -> Image.Image:
    picture = Image.fromarray(image.numpy())
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
