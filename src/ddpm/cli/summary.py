"""Say in a sentence what each score means."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ddpm.scoring.copying import LEAST, NEAR
from ddpm.scoring.two_sample import LEAST_IMAGES

SURE = 2  # standard errors: a smaller difference may be chance
CHANCE = {"two_sample": 0.5, "near_copies": NEAR}  # of scores that need no real images to compare with


class Line(NamedTuple):
    """A score of samples and of held-out real images, the standard error of their difference, and what it says."""

    name: str
    samples: str
    real: str
    error: str
    says: str


class Kind(NamedTuple):
    """A score's key and name, and sentences for one that is like that of real images, higher and lower.

    A sentence may have {samples} and {excess}, the difference to real images. least: what to say of a score that is
    null.
    """

    key: str
    name: str
    alike: str
    higher: str
    lower: str
    least: str = "left out: the classifier sees no differences between the images"


def _frechet(key: str, name: str) -> Kind:
    return Kind(
        f"{key}.frechet",
        f"Frechet distance {name}",
        "as a whole, they differ from training images no more than new real images do",
        "as a whole, they differ from training images more than new real images do",
        "as a whole, they are nearer to training images than new real images are",
    )


def _told(key: str, name: str, by: str, least: str = "") -> Kind:
    least = least or f"left out: needs {LEAST_IMAGES} samples and {LEAST_IMAGES} training images"
    tells = f"{by} tells them from real images in {{samples}} of the cases; chance is 50 %"
    return Kind(f"samples.{key}", name, f"{by} cannot tell them from real images", tells, tells, least)


def _level(key: str, name: str) -> Kind:
    return Kind(
        f"samples.{key}",
        name,
        "as many as real images have",
        "more than real images have",
        "fewer than real images have",
    )


def _nearest(space: str, name: str) -> Kind:
    near, real = f"samples.nearest_train_{space}", "training images than new real images are"
    return Kind(
        near,
        f"distance to the nearest, {name}",
        f"as near to {real.replace('than', 'as')}",
        f"farther from {real}",
        f"nearer to {real}: copies, or blur",
    )


def _copies(key: str, name: str, least: str) -> Kind:
    more = "copies: {excess} of the samples, beyond chance, are as near to a training image as few real images are"
    return Kind(
        f"samples.near_copies_{key}", f"near copies, {name}", "no sign of copies", more, "fewer than by chance", least
    )


OF_CLASS = f"left out: needs {LEAST} held-out images of a class"
OF_ALL = f"left out: needs {LEAST} held-out images"
ONE_IN_TEN = "left out: a tenth of the pixel values are nearly black or white, or there are too few images"
KINDS = (
    _frechet("a", "by classifier a"),
    _frechet("b", "by classifier b"),
    _frechet("pixels", "in pixels"),
    _told("two_sample_accuracy", "told from real images", "a network"),
    _told("two_sample_without_tone_accuracy", "told without tone", "a network that sees shapes alone", ONE_IN_TEN),
    _level("level_0", "values at level 0"),
    _level("levels_1_to_9", "values at levels 1 to 9"),
    _level("level_255", "values at level 255"),
    Kind(
        "samples.precision",
        "precision",
        "as many as of new real images are like a training image",
        "more than of new real images are like a training image",
        "fewer than of new real images are like a training image: some are like none",
    ),
    Kind(
        "samples.recall",
        "recall",
        "as varied as new real images",
        "they reach more training images than new real images do: scattered",
        "they lack variety: they reach fewer training images than new real images do",
    ),
    Kind(
        "samples.density",
        "density",
        "as often as new real images where training images are dense",
        "more often than new real images where training images are dense: typical ones",
        "less often than new real images where training images are dense",
    ),
    Kind(
        "samples.coverage",
        "coverage",
        "near to as many training images as new real images",
        "near to more training images than new real images",
        "near to fewer training images than new real images: some kinds are missing",
    ),
    Kind(
        "samples.label_accuracy",
        "shows its class",
        "a classifier sees their class as often as in new real images",
        "a classifier sees their class more often than in new real images",
        "a classifier sees their class less often than in new real images",
    ),
    _nearest("pixels", "pixels"),
    _nearest("features", "features"),
    _copies("pixels", "pixels", OF_CLASS),
    _copies("ratio_pixels", "pixels, by ratio", OF_ALL),
    _copies("features", "features", OF_CLASS),
    _copies("ratio_features", "features, by ratio", OF_ALL),
)


def summary(scores: dict[str, Any]) -> list[Line]:
    """Return a line for each score of `evaluation.evaluate`; classes that are unknown have none."""
    lines = []
    for kind in KINDS:
        first, _, key = kind.key.partition(".")
        rows = scores[first] if key == "frechet" else scores
        if key not in rows["samples"] or (kind.name == "shows its class" and rows["samples"][key] is None):
            continue
        lines.append(_line(kind, key, rows))
    return lines


def _line(kind: Kind, key: str, rows: dict[str, Any]) -> Line:
    """Compare a score of samples with that of test images, of two sets of training images, or with chance."""
    value, deviation = rows["samples"][key], rows["samples"][f"{key}_deviation"]
    share = not key.startswith(("frechet", "density", "nearest"))
    text = _percent if share else _number
    if value is None:
        return Line(kind.name, "-", "-", "-", kind.least)
    real = next((rows[name] for name in ("test", "baseline") if rows[name].get(key) is not None), None)
    chance = next((chance for name, chance in CHANCE.items() if key.startswith(name)), None)
    other: Any = chance if real is None else real[key]
    error = deviation if real is None else math.hypot(deviation, real[f"{key}_deviation"])
    excess = value - (chance or other)
    says = kind.alike if abs(excess) <= SURE * error else kind.higher if excess > 0 else kind.lower
    told = says.format(samples=text(value), excess=text(excess))
    return Line(kind.name, text(value), text(other), text(error), told)


def table_of(lines: Sequence[Line]) -> str:
    """Return the lines as a table of text."""
    rows = [("", "samples", "real", "error", ""), *lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(each.rjust(n) for each, n in zip(row[1:4], widths[1:4], strict=True)), row[4]]
        ).rstrip()
        for row in rows
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return f"{value:.3g}"
