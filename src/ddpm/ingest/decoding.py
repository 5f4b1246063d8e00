"""From a picture file to levels: PNG, JPEG, WebP, BMP and GIF, upright, opaque and 8 bits deep.

Of an animation the first frame counts. Colour profiles are not applied. Of 16 bits of colour Pillow gives the upper 8.
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
COLOUR = 16  # levels by which the channels of a pixel differ at most in a grey picture, for JPEG's errors

# For the whole process, since catch_warnings is of no use in threads.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
Image.MAX_IMAGE_PIXELS = 50 * 10**6  # Pillow refuses a picture of twice as many


class Look(NamedTuple):
    """What a picture is, once upright."""

    height: int
    width: int
    colour: bool


class Target(NamedTuple):
    """What pictures become.

    shape: (C, H, W), where C is 1 or 3.
    inner: (h, w) to which they are fitted first; from there to (H, W) their edges are repeated, centred.
    fit: "crop" is the middle after a resize that covers, "pad" a resize that lies within, on background, "stretch"
        a resize alone.
    background: what transparency is laid on, and what "pad" pads with.
    """

    shape: tuple[int, int, int]
    inner: tuple[int, int]
    fit: str
    background: Colour


def look(source: Path | Levels, background: Colour) -> Look:
    """What a picture is; it has colour when the channels of a pixel differ by more than 16 of 255 levels.

    Args:
        source: a file, or grey levels (H, W).

    Raises:
        ValueError: the reason, short and of one line, for which the file cannot be decoded.
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
    """The picture as uint8 (C, H, W); one of the inner size is not resampled.

    Raises:
        ValueError: the reason, short and of one line, for which the file cannot be decoded.
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
    """Decode a picture to RGB, upright and on `background`."""
    if isinstance(source, np.ndarray):
        return Image.fromarray(source).convert("RGB")
    try:
        with source.open("rb") as file:
            image, depth = _opened(file)
            return _opaque(_upright(image), depth, background)
    except UnidentifiedImageError:
        raise ValueError("not a readable PNG, JPEG, WebP, BMP or GIF picture") from None
    except Exception as error:  # Pillow raises all sorts for damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(shown(reason, 100)) from None


def _opened(file: BinaryIO) -> tuple[Image.Image, int]:
    """Load the picture, and return it with how many bits its levels have in the file."""
    head = file.read(25)
    with Image.open(file, formats=FORMATS) as image:
        image.verify()  # a PNG's checksums, which load() skips
    image = Image.open(file, formats=FORMATS)
    image.load()
    return image, head[24] if image.format == "PNG" else 8


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF, for which Pillow raises all sorts, does not make the picture unreadable
        return image


def _opaque(image: Image.Image, depth: int, background: Colour) -> Image.Image:
    if image.mode.startswith("I"):  # I;16, or I
        image = _eight_bits(image)
    elif image.mode != "P" and "transparency" in image.info:
        key = image.info["transparency"]  # of the file's depth, while the levels are of 8 bits
        image.info["transparency"] = tuple(_level(k, depth) for k in key) if image.mode == "RGB" else _level(key, depth)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=image)
    return canvas


def _level(value: int, depth: int) -> int:
    """The level of 8 bits that Pillow makes of `value`, of `depth` bits."""
    highest = 2 ** min(depth, 8) - 1
    return value >> 8 if depth == 16 else (value & highest) * 255 // highest


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits as L, or as LA where a level stands for transparency; 65535 becomes 255."""
    levels = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey
