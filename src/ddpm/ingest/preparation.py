"""Validate the data params, and choose the size and colour of the images."""

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from PIL import ImageColor
from pydantic import AfterValidator, BeforeValidator, Field

from ddpm.images.card import MAX_SIDE, padded
from ddpm.ingest.decoded import in_parallel, named
from ddpm.ingest.decoding import Colour, Look, Target, look
from ddpm.ingest.folders import Picture
from exact_stages.console import UserError
from exact_stages.params import Section

OWN_SIDE, SIDE = 48, 32  # pixels: images up to OWN_SIDE keep their size, others get SIDE
LEAST_SIDE = 5  # pixels: the classifiers halve three times, and in bfloat16 smaller images give NaN
MOST_FAULTS = 50
TOGETHER = 1000  # images handed to the threads at once


def _is_colour(text: str) -> str:
    try:
        ImageColor.getrgb(text)
    except ValueError:
        raise ValueError("must be a colour such as white, black or #a0b0c0") from None
    return text


def _size(value: object) -> object:
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else value
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(map(_is_side, sides)):
        return tuple(sides)
    raise ValueError(f"must be null, or pixels such as 32 or [48, 32] (height, width), at most {MAX_SIDE}")


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


class DataParams(Section):
    """The source of the images and their conversion; None means chosen from the images."""

    set: Annotated[str, Field(min_length=1)]
    image_size: Annotated[tuple[int, int] | None, BeforeValidator(_size)]
    colour: bool | None
    fit: Literal["crop", "pad", "stretch"]
    background: Annotated[str, AfterValidator(_is_colour)]
    test: Annotated[float, Field(gt=0, le=0.5)]

    @property
    def background_colour(self) -> Colour:
        """Return the background as three levels."""
        red, green, blue = ImageColor.getrgb(self.background)[:3]
        return red, green, blue


def looks_of(pictures: Sequence[Picture], background: Colour) -> Counter[Look]:
    """Read all images, and count each combination of size and colour.

    Raises:
        UserError: images are unreadable; the message has one line for each.
    """

    def one(index: int) -> Look | str:
        try:
            return look(pictures[index].source, background)
        except ValueError as error:
            return f"{named(pictures, index)}: {error}"

    looks = Counter[Look]()
    faults: list[str] = []
    for part in in_parallel(one, len(pictures), TOGETHER, "look"):
        looks.update(each for each in part if isinstance(each, Look))
        faults += [each for each in part if isinstance(each, str)]
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise UserError("\n  ".join([f"{len(faults)} unreadable; repair or remove:", *faults[:MOST_FAULTS], *more]))
    return looks


def target_of(looks: Counter[Look], params: DataParams) -> tuple[Target, dict[str, str]]:
    """Choose size and colour; return them, and a reason for each param that is null.

    Raises:
        UserError: the images would be too small.
    """
    why: dict[str, str] = {}
    sizes = {(each.height, each.width) for each in looks}
    if params.image_size:
        inner = params.image_size
    elif len(sizes) == 1 and max(next(iter(sizes))) <= OWN_SIDE:
        inner = next(iter(sizes))
        why["data.image_size"] = f"{inner[0]} x {inner[1]}, their own"
    else:
        inner = (SIDE, SIDE)
        sides = [side for size in sizes for side in size]
        text = f"{SIDE} x {SIDE}, by fit {params.fit}; their sides are {min(sides)} to {max(sides)} pixels"
        why["data.image_size"] = text
    if (outer := padded(*inner)) != inner:
        chosen = why.get("data.image_size", f"{inner[0]} x {inner[1]}")
        why["data.image_size"] = f"{chosen}, padded to {outer[0]} x {outer[1]}, which can be halved"
    if min(outer) < LEAST_SIDE:
        raise UserError(f"data.image_size: {outer[0]} x {outer[1]} pixels are too few; set {2 * LEAST_SIDE}, or more")
    coloured = sum(count for each, count in looks.items() if each.colour)
    colour = coloured > 0 if params.colour is None else params.colour
    if params.colour is None:
        why["data.colour"] = f"{str(colour).lower()}, since {coloured} of {looks.total()} images have colour"
    return Target((3 if colour else 1, *outer), inner, params.fit, params.background_colour), why


def check_disk(folder: Path, count: int, target: Target) -> None:
    """Check that a folder has room for `count` images twice: while they are split, and in the two splits.

    Raises:
        UserError: it has less.
    """
    needed, free = 2 * count * math.prod(target.shape), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"data.set: {count:,} images need {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} are free; free "
            "some, name a folder with fewer images, or lower data.image_size"
        )
