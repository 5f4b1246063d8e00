"""Decode PNG, JPEG, WebP, BMP, GIF and TIFF files to uint8 arrays that are upright, opaque and of one size.

An animation gives its first frame, a TIFF its first page. Colour profiles are ignored. Values of more than 8 bits are
scaled by one range for all images. Pillow reduces 16-bit colour to its upper 8 bits, and ignores a transparent level of
images that have not 8 bits.
"""

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from exact_stages.console import shown

Colour = tuple[int, int, int]
Levels = np.ndarray[Any, np.dtype[np.uint8]]
Values = np.ndarray[Any, np.dtype[Any]]  # of more than 8 bits
Range = tuple[float, float]
Extent = tuple[float, float, int]  # the least and the greatest value, and how many are beyond a range
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
EIGHT, SIXTEEN, COLOUR_16, OTHER = "8 bits", "16 bits", "colour of 16 bits, whose upper 8 are read", "floats or 32 bits"
COLOUR = 16  # levels; a JPEG of a grey image may have channels that differ by as much
MOST_PIXELS = 10**8  # Pillow refuses larger images
LARGEST = 21 * MOST_PIXELS  # bytes of memory while such an image is decoded; WebP and 16 bits need most

# For the whole process, since catch_warnings is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # it warns of these, and refuses twice as many
# A large image is to be one block of memory. Of several, each thread would keep half a gigabyte when it is freed.
Image.core.set_block_size(1 << 30)  # type: ignore[attr-defined]


class Look(NamedTuple):
    """Size, colour and depth of an upright image, and whether its file has further pages."""

    height: int
    width: int
    colour: bool
    depth: str = EIGHT
    pages: bool = False


class Target(NamedTuple):
    """What all images are converted to.

    shape: (C, H, W), where C is 1 or 3.
    inner: (h, w), the size before the edges are repeated to (H, W).
    fit: how to reach `inner`. "crop" keeps the aspect and crops the centre, "pad" keeps the aspect and adds
        background, "stretch" changes the aspect.
    background: the colour behind transparent pixels and of the padding.
    range: the values of more than 8 bits that become the levels 0 and 255; values beyond are clipped.
    """

    shape: tuple[int, int, int]
    inner: tuple[int, int]
    fit: str
    background: Colour
    range: Range | None = None


def look(source: Path | Levels | Values, background: Colour, limits: Range | None = None) -> tuple[Look, Extent | None]:
    """Return how an image looks and, if it has more than 8 bits, its values; some may be beyond `limits`.

    It has colour if channels of a pixel differ by more than COLOUR levels.

    Args:
        source: a file, or levels or 16-bit values (H, W) or (H, W, 3).

    Raises:
        ValueError: the file cannot be decoded; the message is one short line.
    """
    if isinstance(source, np.ndarray) and source.ndim == 2 and source.dtype == np.uint8:
        return Look(source.shape[0], source.shape[1], False), None
    image, depth, pages = _read(source, background)
    if isinstance(image, Image.Image):
        return Look(image.height, image.width, _has_colour(image), depth, pages), None
    beyond = int(((image < limits[0]) | (image > limits[1])).sum()) if limits else 0
    low, high = float(image.min()), float(image.max())
    colour = image.ndim == 3 and _has_colour(Image.fromarray(_scaled(image, (0, high))))
    return Look(image.shape[0], image.shape[1], colour, depth, pages), (low, high, beyond)


def decode(source: Path | Levels | Values, target: Target) -> Levels:
    """Decode an image to uint8 (C, H, W); an image of the inner size is not resampled.

    Raises:
        ValueError: the file cannot be decoded; the message is one short line.
    """
    channels, height, width = target.shape
    if isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.shape == target.inner and channels == 1:
        levels = source
    else:
        picture, *_ = _read(source, target.background)
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(_scaled(picture, target.range or (0, 65535))).convert("RGB")
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


def _has_colour(image: Image.Image) -> bool:
    red, green, blue = image.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    return any(ImageChops.difference(highest, lowest).histogram()[COLOUR + 1 :])


def _scaled(values: Values, limits: Range) -> Levels:
    low, high = limits
    scaled = np.subtract(values, low, dtype=np.result_type(values.dtype, np.float32))
    scaled *= 255 / ((high - low) or 1)
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


def _read(source: Path | Levels | Values, background: Colour) -> tuple[Image.Image | Values, str, bool]:
    """Read an image, upright, as RGB on `background`, or as values of more than 8 bits, (H, W) or (H, W, 3).

    Return also its depth, and whether its file has further pages.

    Raises:
        ValueError: the file cannot be decoded.
    """
    if isinstance(source, np.ndarray):
        eight = source.dtype == np.uint8
        return (Image.fromarray(source).convert("RGB") if eight else source), EIGHT if eight else SIXTEEN, False
    try:
        with source.open("rb") as file:
            with Image.open(file, formats=FORMATS) as whole:
                whole.verify()  # a PNG's checksums, which load() skips
            image: Image.Image = Image.open(file, formats=FORMATS)
            pages = image.format == "TIFF" and getattr(image, "n_frames", 1) > 1
            wide = re.search(";16[BLN]", str(getattr(image, "tile", "")))  # unlike BGR;16, of 5 or 6 bits a channel
            tags = getattr(image, "tag_v2", {})  # of a TIFF; exif_transpose drops them
            bits, kinds = tags.get(258), tags.get(339, (1,))
            image = ImageOps.exif_transpose(image)
            if bits == (8,) and kinds == (2,):
                raise ValueError("8 bits with a sign; convert them to 8 bits without")
            if image.mode[0] not in "IF":
                image = _opaque(image, background)
                return (np.asarray(image).astype(np.uint16) * 257, COLOUR_16, pages) if wide else (image, EIGHT, pages)
            if tags.get(262) == 0:  # Pillow inverts only 8 bits
                raise ValueError("white is zero; convert it to black is zero")
            values = np.asarray(image)
            if bits == (32,) and kinds == (1,):
                values = values.view(np.uint32)  # Pillow has only integers with a sign
    except UnidentifiedImageError:
        raise ValueError("not a readable PNG, JPEG, WebP, BMP, GIF or TIFF file") from None
    except Exception as error:  # Pillow raises many types for damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(shown(reason, 100)) from None
    if not np.isfinite(values).all():
        raise ValueError("has NaN or infinite values; replace them")
    return values, SIXTEEN if image.mode.startswith("I;16") else OTHER, pages


def _opaque(image: Image.Image, background: Colour) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=image)
    return canvas
