"""From pictures to the images of a data set: the size and colour that they get, and the split into two files."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Annotated, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import ImageColor
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor

from ddpm.images.card import MAX_SIDE
from ddpm.images.pixels import padded, to_float
from ddpm.images.splits import hashed_places
from ddpm.ingest.decoding import Colour, Levels, Look, Target, decode, look
from ddpm.ingest.folders import Picture
from ddpm.ingest.near_duplicates import thumbnails
from ddpm.pipeline.console import UserError, shown
from ddpm.pipeline.params import Section

OWN_SIDE, SIDE = 48, 32  # images of at most so many pixels a side keep their size; others get this one
BLOCK = 1 << 24  # bytes of images that are in memory together
MOST_FAULTS = 50
MOST_THREADS = 16  # each may hold a large picture
LEVELS = 256

T = TypeVar("T")
Tick = Callable[[int], object]


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
    """Where the images are, and what becomes of them; None is for what follows from the images."""

    set: Annotated[str, Field(min_length=1)]
    image_size: Annotated[tuple[int, int] | None, BeforeValidator(_size)]
    colour: bool | None
    fit: Literal["crop", "pad", "stretch"]
    background: Annotated[str, AfterValidator(_is_colour)]
    test: Annotated[float, Field(gt=0, le=0.5)]

    @property
    def background_colour(self) -> Colour:
        """As three levels."""
        red, green, blue = ImageColor.getrgb(self.background)[:3]
        return red, green, blue


def looks_of(pictures: Sequence[Picture], background: Colour, tick: Tick) -> list[Look]:
    """What each picture is.

    Raises:
        UserError: some cannot be read; they are named together.
    """

    def one(picture: Picture) -> Look | str:
        try:
            return look(picture.source, background)
        except ValueError as error:
            return f"{_named(picture)}: {error}"

    found: list[Look] = []
    faults: list[str] = []
    for part in _in_parallel(one, pictures, 1000):
        tick(len(part))
        found += [each for each in part if isinstance(each, Look)]
        faults += [each for each in part if isinstance(each, str)]
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        count = "1 unreadable picture" if len(faults) == 1 else f"{len(faults)} unreadable pictures"
        raise UserError("\n  ".join([f"{count}; mend or remove:", *faults[:MOST_FAULTS], *more]))
    return found


def target_of(looks: Sequence[Look], params: DataParams) -> tuple[Target, dict[str, str]]:
    """What the pictures become, and for what follows from them its param, with the value and why."""
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
        why["data.image_size"] = (
            f"{SIDE} x {SIDE}, by fit {params.fit}; their sides are {min(sides)} to {max(sides)} pixels"
        )
    if (outer := padded(*inner)) != inner:
        edges = f"padded to {outer[0]} x {outer[1]}, which can be halved"
        why["data.image_size"] = ", ".join(
            filter(None, [why.get("data.image_size", f"{inner[0]} x {inner[1]}"), edges])
        )
    coloured = sum(each.colour for each in looks)
    colour = coloured > 0 if params.colour is None else params.colour
    if params.colour is None:
        why["data.colour"] = f"{str(colour).lower()}, since {coloured} of {len(looks)} images have colour"
    return Target((3 if colour else 1, *outer), inner, params.fit, params.background_colour), why


class Images:
    """All images of a set in one form, on disk: in memory are no more than BLOCK bytes of them.

    places: where a split has each (N,); ranks: which of twins decides for all (N,). Both are hashes of the files: no
    param moves them. keys: of the levels (N,), see `splits.hashed_places`. thumbnails: see `twins.thumbnails`.
    """

    def __init__(self, scratch: IO[bytes], pictures: Sequence[Picture], target: Target, tick: Tick) -> None:
        """Decode all.

        Args:
            scratch: an empty file, open for writing and reading.

        Raises:
            UserError: a picture has changed, and cannot be read any more.
        """
        self.shape = target.shape
        self.labels = torch.tensor([picture.label for picture in pictures])
        self._scratch = scratch
        self._each = int(np.prod(target.shape))
        self._rows = max(1, BLOCK // self._each)

        def one(picture: Picture) -> tuple[Levels, float, float]:
            try:
                return decode(picture.source, target), *_place_and_rank(picture)
            except (ValueError, OSError) as error:
                raise UserError(f"{_named(picture)}: {error}; it changed meanwhile, so run it again") from None

        hashes: list[tuple[float, float]] = []
        keys, small = [], []
        for part in _in_parallel(one, pictures, self._rows):
            images = torch.from_numpy(np.stack([levels for levels, *_ in part]))
            scratch.write(images.numpy().data)
            hashes += [(place, rank) for _, place, rank in part]
            keys.append(hashed_places(images, "levels"))
            small.append(thumbnails(images))
            tick(len(part))
        self.places, self.ranks = torch.tensor(hashes, dtype=torch.float64).unbind(1)
        self.keys, self.thumbnails = torch.cat(keys), torch.cat(small)

    def take(self, chosen: Tensor) -> Iterator[Tensor]:
        """The images that a mask (N,) chooses, in parts, uint8 (n, C, H, W)."""
        for first, mask in zip(range(0, len(chosen), self._rows), chosen.split(self._rows), strict=True):
            self._scratch.seek(first * self._each)
            levels = bytearray(self._scratch.read(len(mask) * self._each))
            yield torch.frombuffer(levels, dtype=torch.uint8).view(-1, *self.shape)[mask]


class Pixels(NamedTuple):
    """Mean and deviation of pixels in [-1, 1]."""

    mean: float
    deviation: float


def counted(parts: Iterator[Tensor], counts: Tensor) -> Iterator[Tensor]:
    """Hand uint8 parts on, and add how often each level stands in them to counts (LEVELS,)."""
    for part in parts:
        counts += part.flatten().bincount(minlength=LEVELS)
        yield part


def statistics_of(counts: Tensor) -> Pixels:
    """From how often each level occurs, (LEVELS,)."""
    values = to_float(torch.arange(LEVELS)).double()
    total = counts.sum()
    mean = (counts * values).sum() / total
    variance = (counts * (values - mean).square()).sum() / (total - 1)
    return Pixels(float(mean), float(variance.sqrt()))


def _place_and_rank(picture: Picture) -> tuple[float, float]:
    """Two hashes in [0, 1) of its file, or of its levels."""
    data = picture.source.read_bytes() if isinstance(picture.source, Path) else picture.source.tobytes()
    digests = (hashlib.blake2b(data, digest_size=8, key=key).digest() for key in (b"place", b"rank"))
    place, rank = (int.from_bytes(digest, "big") / 2**64 for digest in digests)
    return place, rank


def _named(picture: Picture) -> str:
    return shown(str(picture.source)) if isinstance(picture.source, Path) else "a picture"


def _in_parallel(function: Callable[[Picture], T], pictures: Sequence[Picture], rows: int) -> Iterator[list[T]]:
    """By all cores, for so many pictures at a time; Pillow lets threads run beside one another."""
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for first in range(0, len(pictures), rows):
            yield list(pool.map(function, pictures[first : first + rows]))
