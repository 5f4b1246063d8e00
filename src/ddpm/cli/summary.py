"""Say in a sentence what each score means."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ddpm.scores.c2st import LEAST_IMAGES
from ddpm.scores.copying import LEAST

SURE = 2  # standard errors: a smaller difference may be chance
OFF = 0.05  # of the images: classes that differ by more, beyond chance, decide other scores
NAMES = {
    "class_mix": "mix of classes",
    "conditional_accuracy": "conditional accuracy",
    "a.frechet": "Frechet distance by classifier a",
    "b.frechet": "Frechet distance by classifier b",
    "pixels.frechet": "Frechet distance in pixels",
    "c2st_accuracy": "C2ST accuracy",
    "c2st_8_levels_accuracy": "C2ST accuracy, 8 levels",
    "c2st_black_and_white_accuracy": "C2ST accuracy, black and white",
    "precision": "precision",
    "recall": "recall",
    "near_copies_ratio_pixels": "near copies",
    "specks": "specks",
}
UNSEEN = ("conditional_accuracy", "near_copies_ratio_pixels", "class_mix")  # compared with test images
SMALLER = "; less than {seen} may not show"
RESTS = {"class_mix": "", "conditional_accuracy": "near_copies"}  # the beginnings of the keys that rest on it
JUDGED = ("class_mix", "conditional_accuracy", "b.frechet", "precision", "recall")  # by the last classifier
WITHHELD = "not comparable: the classes are off, see above"
ALIKE = {
    "c2st": "a network cannot tell them from real images",
    "near_copies": "no sign of copies",
    "": "as real images",
}
TOLD = (
    "a network tells them from real images in {samples} of the cases; chance is 50 %",
    "a network is right in fewer cases than by chance: are samples nearly copies?",
)
# What to say of a score that is higher than that of new real images, and of a lower one.
SAYS = {
    "class_mix": ("{samples} would need another class: sample each as often as real images have it", ALIKE[""]),
    "frechet": ("the set differs from a new real one", "the set is nearer to training images than a new real one"),
    "c2st_accuracy": TOLD,
    "c2st_8_levels_accuracy": TOLD,
    "c2st_black_and_white_accuracy": TOLD,
    "precision": ("more look typical than of real images", "fewer look typical than of real images"),
    "conditional_accuracy": ("their class shows more often", "their class shows less often"),
    "near_copies_ratio_pixels": ("copies: {excess} more than in new real images", "fewer than in new real images"),
    "specks": ("{excess} more have a lone speck than of real images", "fewer have a lone speck than of real images"),
}
CHANCE = 0.5  # of the C2ST where nothing differs
LEFT_OUT = {
    "conditional_accuracy": "left out: there is one class",
    "c2st_accuracy": (few := f"left out: needs {LEAST_IMAGES} samples, and twice as many training images"),
    "c2st_8_levels_accuracy": few,
    "c2st_black_and_white_accuracy": "left out: too few images, or they have many levels between black and white",
    "near_copies_ratio_pixels": f"left out: needs {LEAST} held-out images",
    "specks": "left out: the images are in colour, or not on black",
}


class Compared(NamedTuple):
    """A score of samples, that of real images, their difference, and its standard error.

    samples: None if the score is left out. error: None if it is not known.
    """

    key: str
    samples: float | None
    real: float = 0.0
    excess: float = 0.0
    error: float | None = 0.0


class Line(NamedTuple):
    """The texts of a row of the table."""

    name: str
    samples: str
    real: str
    error: str
    says: str


def compared(scores: dict[str, Any]) -> list[Compared]:
    """Compare each score of `evaluation.evaluate` with that of real images; scores that need classes may be absent.

    These are training images with the classes of the samples, or test images for what rests on having seen an image.
    Of a distance, the excess is the stage's own. Chance is known, and has no error.
    """
    found = []
    for name in NAMES:
        space, _, key = name.rpartition(".")
        rows = scores.get(space, {}) if space else scores
        own = rows.get("samples", {})
        if key not in own:
            continue
        if (value := own[key]) is None:
            found.append(Compared(name, None))
            continue
        real = rows["test" if key in UNSEEN else "real"]
        expected = CHANCE if key.startswith("c2st") else real[key]
        excess, error = own.get(f"{key}_excess", value - expected), own.get(f"{key}_excess_error", own[f"{key}_error"])
        if key not in ("frechet", "recall") and not key.startswith("c2st"):
            error = math.hypot(error, real[f"{key}_error"])
        found.append(Compared(name, value, expected, excess, error))
    return found


def summary(scores: dict[str, Any]) -> list[Line]:
    """Return a line for each score that `compared` has; where classes are off, it says nothing that rests on them."""
    lines = []
    rows = compared(scores)
    off = tuple(RESTS[each.key] for each in rows if _off(each))
    for name, samples, real, excess, error in rows:
        key, title = name.rpartition(".")[2], NAMES[name]
        if "scale" in scores and name in JUDGED:
            title = f"{title.removesuffix(' by classifier b')} by {scores['scale'].partition(':')[0]}"
        if samples is None:
            lines.append(Line(title, "-", "-", "-", LEFT_OUT[key]))
            continue
        form = "{:.3g}" if key == "frechet" else "{:.1%}"  # the others are shares
        seen = SURE * (error or 0)
        if error is None:
            says = "its error is not known: compare it within one table"
        elif key.startswith(off) and key != "class_mix":
            says = WITHHELD
        else:
            alike = next(text for start, text in ALIKE.items() if key.startswith(start)) + SMALLER
            says = alike if abs(excess) <= seen else SAYS[key][excess < 0]
        value, expected, deviation = ("-" if each is None else form.format(each) for each in (samples, real, error))
        told = says.format(samples=value, excess=form.format(excess), seen=form.format(seen))
        lines.append(Line(title, value, expected, deviation, told))
    return lines


def _off(row: Compared) -> bool:
    """Tell whether the classes of samples are mixed otherwise than those of real images, or not the ones that show."""
    less = row.excess if row.key == "class_mix" else -row.excess
    return row.key in RESTS and less > max(OFF, SURE * (row.error or 0))


def table_of(lines: Sequence[Line]) -> str:
    """Return the lines as a table of text."""
    head = Line("", "samples", "real", "error", "")
    width = max(32, *(len(each.name) + 2 for each in lines))
    rows = (f"{name:{width}}{own:>9}{real:>9}{error:>9}  {says}" for name, own, real, error, says in (head, *lines))
    return "\n".join(each.rstrip() for each in rows)
