"""Read the images of a set, and choose their size, colour and range."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm.images.card import DataCard, padded
from ddpm.images.decoded import in_parallel, named
from ddpm.images.decoding import COLOUR_16, EIGHT, OTHER, Colour, Extent, Look, Range, Target, look
from ddpm.images.fetching import FILES
from ddpm.images.folders import Folder, Picture, read_folder
from ddpm.images.mnist import read_mnist
from ddpm.images.npz import read_arrays
from exact_stages.console import UserError, shown

OWN_SIDE, SIDE = 48, 32  # pixels: images up to OWN_SIDE keep their size, others get SIDE
LEAST_SIDE = 5  # pixels: the classifiers halve three times, and in bfloat16 smaller images give NaN
TOPS = (1023, 4095, 16383, 65535)  # greatest values of 10, 12, 14 and 16 bits
MOST_FAULTS = 50
TOGETHER = 1000  # images handed to the threads at once


class Seen(NamedTuple):
    """How many of the images have each look, and the values of those of more than 8 bits, None if there are none."""

    looks: Counter[Look]
    extent: Extent | None = None


class Source(NamedTuple):
    """The images of a set, what they are converted to, and a reason for each param that is null."""

    folder: Folder
    target: Target
    card: DataCard
    why: dict[str, str]


def looks_of(pictures: Sequence[Picture], background: Colour, limits: Range | None = None) -> Seen:
    """Read all images, and count what is in them; `limits` are those of `look`.

    Raises:
        UserError: images are unreadable; the message has one line for each.
    """

    def one(index: int) -> tuple[Look, Extent | None] | str:
        try:
            return look(pictures[index].source, background, limits)
        except ValueError as error:
            return f"{named(pictures, index)}: {error}"

    looks, extents, faults = Counter[Look](), list[Extent](), list[str]()
    for part in in_parallel(one, len(pictures), TOGETHER, "look"):
        looks.update(each[0] for each in part if not isinstance(each, str))
        faults += [each for each in part if isinstance(each, str)]
        extents += [each[1] for each in part if not isinstance(each, str) and each[1]]
        if extents:
            lows, highs, beyond = zip(*extents, strict=True)
            extents = [(min(lows), max(highs), sum(beyond))]
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise UserError("\n  ".join([f"{len(faults)} unreadable; repair or remove:", *faults[:MOST_FAULTS], *more]))
    return Seen(looks, *extents)


def range_of(seen: Seen) -> Range | None:
    """Choose the range of values of more than 8 bits, None if there are none."""
    if seen.extent is None:
        return None
    low, high, _ = seen.extent
    if any(each.depth == OTHER for each in seen.looks):
        return low, high
    return 0, next(top for top in TOPS if high <= top)


def notes_of(seen: Seen, limits: Range | None) -> list[str]:
    """Say what a user may not expect of depths and pages; `limits` are those that were given."""
    depths, pages = Counter[str](), 0
    for each, count in seen.looks.items():
        depths[each.depth] += count
        pages += count * each.pages
    notes = [f"{pages} files have several pages; the first one counts"] if pages else []
    if limits or len(depths) > 1 or depths[COLOUR_16]:
        counts = ", ".join(f"{count} of {depth}" for depth, count in sorted(depths.items()))
        notes.append(f"depths: {counts}; one range scales all but those of {EIGHT}")
    if seen.extent and seen.extent[2]:
        notes.append(f"warning: {seen.extent[2]:,} values are beyond data.range, and clipped")
    return notes


def target_of(
    seen: Seen,
    image_size: tuple[int, int] | None,
    colour: bool | None,
    fit: str,
    background: Colour,
    limits: Range | None,
) -> tuple[Target, dict[str, str]]:
    """Choose size, colour and range; return them, and a reason for each param that is null.

    Raises:
        UserError: the images would be too small.
    """
    why, looks = dict[str, str](), seen.looks
    sizes = {(each.height, each.width) for each in looks}
    if image_size:
        inner = image_size
    elif len(sizes) == 1 and max(next(iter(sizes))) <= OWN_SIDE:
        inner = next(iter(sizes))
        why["data.image_size"] = f"{inner[0]} x {inner[1]}, their own"
    else:
        inner = (SIDE, SIDE)
        sides = [side for size in sizes for side in size]
        text = f"{SIDE} x {SIDE}, by fit {fit}; their sides are {min(sides)} to {max(sides)} pixels"
        why["data.image_size"] = text
    if (outer := padded(*inner)) != inner:
        chosen = why.get("data.image_size", f"{inner[0]} x {inner[1]}")
        why["data.image_size"] = f"{chosen}, padded to {outer[0]} x {outer[1]}, which can be halved"
    if min(outer) < LEAST_SIDE:
        raise UserError(f"data.image_size: {outer[0]} x {outer[1]} pixels are too few; set {2 * LEAST_SIDE}, or more")
    coloured = sum(count for each, count in looks.items() if each.colour)
    if colour is None:
        colour = coloured > 0
        why["data.colour"] = f"{str(colour).lower()}, since {coloured} of {looks.total()} images have colour"
    chosen_range = limits or range_of(seen) if seen.extent else None
    if seen.extent and chosen_range and not limits:
        low, high, _ = seen.extent
        why["data.range"] = f"{chosen_range[0]:,g} to {chosen_range[1]:,g}, since values are {low:,g} to {high:,g}"
    return Target((3 if colour else 1, *outer), inner, fit, background, chosen_range), why


def read_source(path: Path, **wanted: Any) -> Source:
    """Read all images of a set once, and choose what they become; `wanted` are arguments of `target_of`.

    Raises:
        UserError: the set has faults; the message names them.
    """
    folder = list_images(path)
    seen = looks_of(folder.pictures, wanted["background"], wanted["limits"])
    target, why = target_of(seen, **wanted)
    for each in notes_of(seen, wanted["limits"]):
        print(each)
    name = shown(path.resolve().name.removesuffix(".npz")) or "images"
    card = DataCard(name=name, shape=target.shape, classes=folder.classes, source_range=target.range)
    return Source(folder, target, card, why)


def list_images(path: Path, least: int = 2) -> Folder:
    """List the images of a folder, an npz file or the raw files of MNIST; for `least` see `read_folder`."""
    if path.suffix == ".npz" and path.is_file():
        return read_arrays(path, least)
    if not path.is_dir():
        raise UserError(f"{path}: must be a folder or an .npz file")
    return read_mnist(path) if any((path / name).is_file() for name in FILES) else read_folder(path, least)
