"""Decode PNG, JPEG, WebP, BMP and GIF files to uint8 arrays that are upright, opaque and of one size.

An animation gives its first frame. Colour profiles are ignored. Pillow reduces 16-bit colour to its upper 8 bits.
"""

import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from ddpm.pipeline.console import shown

Colour = tuple[int, int, int]
Levels = np.ndarray[Any, np.dtype[np.uint8]]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
COLOUR = 16  # levels; a JPEG of a grey image may have channels that differ by as much

# For the whole process, since catch_warnings is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
Image.MAX_IMAGE_PIXELS = 50 * 10**6  # Pillow refuses images with twice as many pixels


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
        source: a file, or grey levels (H, W).

    Raises:
        ValueError: the file cannot be decoded; the message is one short line.
    """
    if isinstance(source, np.ndarray):
        return Look(source.shape[0], source.shape[1], False)
    image = _picture(source, background)
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
        image = _fitted(_picture(source, target.background), target)
        levels = np.asarray(image.convert("L") if channels == 1 else image)
    levels = levels.reshape(*target.inner, channels)
    rows, columns = height - target.inner[0], width - target.inner[1]
    around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return np.ascontiguousarray(np.pad(levels, around, mode="edge").transpose(2, 0, 1))


def _fitted(image: Image.Image, target: Target) -> Image.Image:
    size = target.inner[1], target.inner[0]
    match target.fit:
        case "crop":
            return ImageOps.fit(image, size)
        case "pad":
            return ImageOps.pad(image, size, color=target.background)
        case _:
            return image.resize(size, Image.Resampling.BICUBIC)


def _picture(source: Path | Levels, background: Colour) -> Image.Image:
    """Decode an image to RGB, upright, on `background`."""
    if isinstance(source, np.ndarray):
        return Image.fromarray(source).convert("RGB")
    try:
        with source.open("rb") as file:
            image, depth = _opened(file)
            return _opaque(_upright(image), depth, background)
    except UnidentifiedImageError:
        raise ValueError("not a readable PNG, JPEG, WebP, BMP or GIF file") from None
    except Exception as error:  # Pillow raises many types for damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(shown(reason, 100)) from None


def _opened(file: BinaryIO) -> tuple[Image.Image, int]:
    """Load an image, and return it with its bits per level in the file."""
    head = file.read(25)
    with Image.open(file, formats=FORMATS) as image:
        image.verify()  # a PNG's checksums, which load() skips
    image = Image.open(file, formats=FORMATS)
    image.load()
    return image, head[24] if image.format == "PNG" else 8


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an image with damaged EXIF is still readable; Pillow raises many types
        return image


def _opaque(image: Image.Image, depth: int, background: Colour) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits
        image = _eight_bits(image)
    elif image.mode != "P" and "transparency" in image.info:
        key = image.info["transparency"]  # in the file's depth, while the levels have 8 bits
        image.info["transparency"] = tuple(_level(k, depth) for k in key) if image.mode == "RGB" else _level(key, depth)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=image)
    return canvas


def _level(value: int, depth: int) -> int:
    """Convert a level of `depth` bits to 8 bits as Pillow does."""
    highest = 2 ** min(depth, 8) - 1
    return value >> 8 if depth == 16 else (value & highest) * 255 // highest


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert a 16-bit grey image to L, or to LA if one level means transparent; 65535 becomes 255."""
    levels = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey
