"""Decode PNG, JPEG, WebP, BMP and GIF files to uint8 arrays that are upright, opaque and of one size.

An animation gives its first frame. Colour profiles are ignored. Pillow reduces 16-bit colour to its upper 8 bits, and
ignores a transparent level of images that have not 8 bits.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from exact_stages.console import shown

Colour = tuple[int, int, int]
Levels = np.ndarray[Any, np.dtype[np.uint8]]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
COLOUR = 16  # levels; a JPEG of a grey image may have channels that differ by as much
MOST_PIXELS = 10**8  # Pillow refuses larger images
LARGEST = 21 * MOST_PIXELS  # bytes of memory while such an image is decoded; WebP and 16 bits need most

# For the whole process, since catch_warnings is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # it warns of these, and refuses twice as many
# A large image is to be one block of memory. Of several, each thread would keep half a gigabyte when it is freed.
Image.core.set_block_size(1 << 30)  # type: ignore[attr-defined]


class Look(NamedTuple):
    """Size and colour of an upright image."""

    height: int
    width: int
    colour: bool


class Target(NamedTuple):
    """The size and colour that all images are converted to.

    shape: (C, H, W), where C is 1 or 3.
    inner: (h, w), the size before the edges are repeated to (H, W).
    fit: how to reach `inner`. "crop" keeps the aspect and crops the centre, "pad" keeps the aspect and adds
        background, "stretch" changes the aspect.
    background: the colour behind transparent pixels and of the padding.
    """

    shape: tuple[int, int, int]
    inner: tuple[int, int]
    fit: str
    background: Colour


def look(source: Path | Levels, background: Colour) -> Look:
    """Return size and colour of an image; it has colour if channels of a pixel differ by more than COLOUR levels.

    Args:
        source: a file, or levels (H, W) or (H, W, 3).

    Raises:
        ValueError: the file cannot be decoded; the message is one short line.
    """
    if isinstance(source, np.ndarray) and source.ndim == 2:
        return Look(source.shape[0], source.shape[1], False)
    with _picture(source, background) as image:
        red, green, blue = image.split()
        highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
        lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
        counts = ImageChops.difference(highest, lowest).histogram()
        return Look(image.height, image.width, any(counts[COLOUR + 1 :]))


def decode(source: Path | Levels, target: Target) -> Levels:
    """Decode an image to uint8 (C, H, W); an image of the inner size is not resampled.

    Raises:
        ValueError: the file cannot be decoded; the message is one short line.
    """
    channels, height, width = target.shape
    if isinstance(source, np.ndarray) and source.shape == target.inner and channels == 1:
        levels = source
    else:
        with _picture(source, target.background) as picture:
            image = _fitted(picture, target)
        levels = np.asarray(image.convert("L") if channels == 1 else image)
    levels = levels.reshape(*target.inner, channels)
    rows, columns = height - target.inner[0], width - target.inner[1]
    if rows or columns:
        around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
        levels = np.pad(levels, around, mode="edge")
    return np.ascontiguousarray(levels.transpose(2, 0, 1))


def _fitted(image: Image.Image, target: Target) -> Image.Image:
    size = target.inner[1], target.inner[0]
    match target.fit:
        case "crop":
            return ImageOps.fit(image, size)
        case "pad":
            return ImageOps.pad(image, size, color=target.background)
        case _:
            return image.resize(size, Image.Resampling.BICUBIC)


@contextmanager
def _picture(source: Path | Levels, background: Colour) -> Iterator[Image.Image]:
    """Decode an image to RGB, upright, on `background`.

    Raises:
        ValueError: the file cannot be decoded.
    """
    if isinstance(source, np.ndarray):
        yield Image.fromarray(source).convert("RGB")
        return
    try:
        with source.open("rb") as file:
            with Image.open(file, formats=FORMATS) as whole:
                whole.verify()  # a PNG's checksums, which load() skips
            image: Image.Image = Image.open(file, formats=FORMATS)
            yield _opaque(ImageOps.exif_transpose(image), background)
    except UnidentifiedImageError:
        raise ValueError("not a readable PNG, JPEG, WebP, BMP or GIF file") from None
    except Exception as error:  # Pillow raises many types for damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(shown(reason, 100)) from None


def _opaque(image: Image.Image, background: Colour) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits; Pillow would clip them, not scale
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=image)
    return canvas
