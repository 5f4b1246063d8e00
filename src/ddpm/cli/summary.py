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
    null. number: whether it is no share, which is told in percent.
    """

    key: str
    name: str
    alike: str
    higher: str
    lower: str
    least: str = "left out: the classifier sees no differences between the images"
    number: bool = False


def _frechet(key: str, name: str) -> Kind:
    return Kind(
        f"{key}.frechet",
        f"Frechet distance {name}",
        "as a whole, they differ from training images no more than new real images do",
        "as a whole, they differ from training images more than new real images do",
        "as a whole, they are nearer to training images than new real images are",
        number=True,
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
        number=True,
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
        number=True,
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


class Compared(NamedTuple):
    """A score of samples, that of real images, their difference, and its standard error; None: a score is left out."""

    kind: Kind
    samples: float | None
    real: float = 0.0
    excess: float = 0.0
    error: float = 0.0


def compared(scores: dict[str, Any]) -> list[Compared]:
    """Compare each score of `evaluation.evaluate` with that of real images; scores of unknown classes have none.

    The real images are test images, or another set of training images where a score has none of test images. Where
    chance is known, it is what the difference is to.
    """
    found = []
    for kind in KINDS:
        first, _, key = kind.key.partition(".")
        rows = scores.get(first, {}) if key == "frechet" else scores
        value = rows.get("samples", {}).get(key)
        if value is None:
            if key in rows.get("samples", {}) and key != "label_accuracy":
                found.append(Compared(kind, None))
            continue
        chance = next((chance for name, chance in CHANCE.items() if key.startswith(name)), None)
        row = next((rows[name] for name in ("test", "baseline") if rows[name].get(key) is not None), None)
        real: Any = chance if row is None else row[key]
        error = math.hypot(rows["samples"][f"{key}_deviation"], 0 if row is None else row[f"{key}_deviation"])
        found.append(Compared(kind, value, real, value - (real if chance is None else chance), error))
    return found


def summary(scores: dict[str, Any]) -> list[Line]:
    """Return a line for each score of `evaluation.evaluate` that `compared` has."""
    lines = []
    for kind, samples, real, excess, error in compared(scores):
        if samples is None:
            lines.append(Line(kind.name, "-", "-", "-", kind.least))
            continue
        text = _number if kind.number else _percent
        says = kind.alike if abs(excess) <= SURE * error else kind.higher if excess > 0 else kind.lower
        told = says.format(samples=text(samples), excess=text(excess))
        lines.append(Line(kind.name, text(samples), text(real), text(error), told))
    return lines


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
