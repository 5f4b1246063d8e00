"""Describe a set of labelled images by a data card, which every file made from the set contains.

Names of classes and sizes of images are checked here, and sizes are padded for the U-Net.
"""

import math
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from exact_stages.console import UserError, shown
from exact_stages.params import Section

MAX_SIDE = 1024
MAX_CLASSES = 1000
MOST_BOTTLENECK = 9  # pixels a side: enough to locate objects, few enough to be cheap
MOST_NAMED = 20  # names in one message
FORBIDDEN = r'\/:*?"<>|'


def _grey_or_colour(channels: int) -> int:
    if channels == 2:
        raise ValueError("must be 1 (grey) or 3 (colour)")
    return channels


def _one_each(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("has a name twice; remove one")
    return names


def check_class_name(name: str) -> str:
    """Return why `name` cannot be a class and a folder on every system, or an empty string if it can."""
    forbidden = [each for each in FORBIDDEN if each in name]
    reasons = {
        "is empty": not name.strip(),
        "has unprintable characters or is not valid UTF-8": not name.isprintable(),
        f"has {' '.join(forbidden)}, which some systems forbid": forbidden,
        "begins or ends with a space or dot": name != name.strip(" ."),
        "is longer than 100 characters or 255 bytes": len(name) > 100 or len(name.encode(errors="replace")) > 255,
        "is reserved": name.casefold() == "all",
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _folder_name(name: str) -> str:
    if reason := check_class_name(name):
        raise ValueError(f"{reason}; no class name may")
    return composed(name)


def composed(name: str) -> str:
    """Return a name in one of the ways that Unicode can write it, NFC; systems and keyboards differ."""
    return unicodedata.normalize("NFC", name)


def _all_or_some(value: object) -> object:
    if value == "all":
        return ()
    if isinstance(value, list | tuple) and value:
        return tuple(value)
    raise ValueError("must be all, or a list of class names such as [7]")


def _name(value: object) -> object:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return composed(value) if isinstance(value, str) else value
    raise ValueError("is not a name in YAML; put it in quotes")


Channels = Annotated[int, Field(ge=1, le=3), AfterValidator(_grey_or_colour)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Shape = tuple[Channels, Side, Side]
Name = Annotated[str, AfterValidator(_folder_name)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_CLASSES), AfterValidator(_one_each)]
# Class names in params; an empty tuple means all classes. YAML reads the name 7 as a number.
Classes = Annotated[
    tuple[Annotated[str | int, Field(union_mode="left_to_right"), BeforeValidator(_name)], ...],
    BeforeValidator(_all_or_some),
]


class DataCard(Section):
    """The description of a set of images.

    name: the name of the set.
    shape: (C, H, W) of every image; C is 1 (grey) or 3 (colour).
    classes: the class names, see `composed`; label i means classes[i].
    value_range: the network's values for the levels 0 and 255, see `splits.to_float`.
    source_range: the images' own values for the levels 0 and 255; absent if they had 8 bits.
    images_hash: of the levels and labels of the training images, also in the card of test images.
    """

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    shape: Shape
    classes: Names
    value_range: tuple[Annotated[int, Field(ge=-1, le=-1)], Annotated[int, Field(ge=1, le=1)]] = (-1, 1)
    source_range: Annotated[tuple[float, float] | None, Field(exclude_if=lambda each: each is None)] = None
    images_hash: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$", exclude_if=lambda each: each is None)] = None

    def same_images(self, other: "DataCard") -> bool | None:
        """Tell whether both are of the same training images; None if it is not known."""
        return self.images_hash == other.images_hash if self.images_hash and other.images_hash else None

    def labels(self, names: Iterable[str | int], where: str) -> tuple[int, ...]:
        """Return the labels of the named classes, sorted and unique; all labels if there are no names.

        Raises:
            UserError: a name is unknown; the message begins with `where`.
        """
        labels = set()
        for name in map(str, names):
            if name not in self.classes:
                raise UserError(f"{where}: no class is named {shown(name, 100)}; choose from {listed(self.classes)}")
            labels.add(self.classes.index(name))
        return tuple(sorted(labels)) or tuple(range(len(self.classes)))


def listed(names: Iterable[Any]) -> str:
    """Join names to one line, at most MOST_NAMED of them."""
    texts = [shown(str(name), 100) for name in names]
    more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more


def halvings(height: int, width: int) -> int:
    """Return how often to halve images of this size, down to 5 to 9 pixels a side."""
    return max(0, math.ceil(math.log2(math.sqrt(height * width) / MOST_BOTTLENECK)))


def padded(height: int, width: int) -> tuple[int, int]:
    """Return the smallest size that contains this one and can be halved as often as `halvings` says."""
    unit = 2 ** halvings(height, width)
    outer = -(-height // unit) * unit, -(-width // unit) * unit
    return outer if outer == (height, width) else padded(*outer)  # a larger size may need one more halving
