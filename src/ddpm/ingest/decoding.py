"""From a picture file to levels: PNG, JPEG, WebP, BMP and GIF, upright, opaque and 8 bits deep.

Of an animation the first frame counts. Colour profiles are not applied. Of 16 bits of colour Pillow gives the upper 8.
"""

import math
import stat
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError
from torchvision.transforms import v2

from ddpm.pipeline.console import shown

Colour = tuple[int, int, int]
Levels = np.ndarray[Any, np.dtype[np.uint8]]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MEGAPIXELS = 100  # of the largest picture that is decoded: at 4 bytes a pixel, of which two copies exist at times
COLOUR = 16  # levels by which the channels of a pixel differ at most in a grey picture, for JPEG's errors
REACH = 4  # times what "crop" keeps
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# For the whole process, since catch_warnings is of no use in threads.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")


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


class _RefusedError(ValueError):
    pass


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
        image = FITS[target.fit](_picture(source, target.background), target)
        levels = np.asarray(image.convert("L") if channels == 1 else image)
    levels = levels.reshape(*target.inner, channels)
    rows, columns = height - target.inner[0], width - target.inner[1]
    around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return np.ascontiguousarray(np.pad(levels, around, mode="edge").transpose(2, 0, 1))


def _crop(image: Image.Image, target: Target) -> Image.Image:
    height, width = target.inner
    # What is far from the middle goes first: a ribbon, grown until it covers, would fill any memory.
    left = max(0, (image.width - math.ceil(REACH * image.height * width / height)) // 2)
    top = max(0, (image.height - math.ceil(REACH * image.width * height / width)) // 2)
    if left or top:
        image = image.crop((left, top, image.width - left, image.height - top))
    scale = max(height / image.height, width / image.width)
    image = _resize(image, round(image.height * scale), round(image.width * scale))
    return v2.functional.center_crop(image, [height, width])


def _pad(image: Image.Image, target: Target) -> Image.Image:
    height, width = target.inner
    scale = min(height / image.height, width / image.width)
    image = _resize(image, max(1, round(image.height * scale)), max(1, round(image.width * scale)))
    left, top = (width - image.width) // 2, (height - image.height) // 2
    around = [left, top, width - image.width - left, height - image.height - top]
    return v2.functional.pad(image, around, fill=list(target.background))


def _stretch(image: Image.Image, target: Target) -> Image.Image:
    return _resize(image, *target.inner)


FITS = {"crop": _crop, "pad": _pad, "stretch": _stretch}


def _resize(image: Image.Image, height: int, width: int) -> Image.Image:
    return v2.functional.resize(image, [height, width], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)


def _picture(path: Path | Levels, background: Colour) -> Image.Image:
    """The picture in RGB, upright and on `background`."""
    if isinstance(path, np.ndarray):
        return Image.fromarray(path).convert("RGB")
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a FIFO would hang
            raise _RefusedError("not a file")
        with path.open("rb") as file:
            image, depth = _opened(file)
            return _opaque(_upright(image), depth, background)
    except Exception as error:
        raise ValueError(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"larger than {MEGAPIXELS} megapixels"
    if isinstance(error, UnidentifiedImageError):
        return "not a readable PNG, JPEG, WebP, BMP or GIF picture"
    if isinstance(error, MemoryError):
        return "too little memory to decode it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"damaged: {shown(str(error), 100)}" if isinstance(error, OSError | SyntaxError | ValueError) else "damaged"


def _opened(file: BinaryIO) -> tuple[Image.Image, int]:
    """The picture, loaded, and how many bits its levels have in the file."""
    head = file.read(25)
    if not head:
        raise _RefusedError("empty")
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MEGAPIXELS * 10**6:
            raise Image.DecompressionBombError
        image.verify()  # a PNG's checksums, which load() skips
    image = Image.open(file, formats=FORMATS)
    image.load()
    return image, head[24] if image.format == "PNG" else 8


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises all sorts for damaged EXIF, which does not make the picture unreadable
        return image
    return image if method is None else image.transpose(method)


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
