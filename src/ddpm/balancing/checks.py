"""Check that a model and an imbalanced set fit together, and count the images that each class lacks."""

import sys
from pathlib import Path

from ddpm.images.card import DataCard, listed
from ddpm.images.splits import Processed
from ddpm.model import ModelCard
from exact_stages.console import UserError, shown

MEMORISED_BELOW = 25  # images of a class; of 10 images, up to 16 % of the samples are copies (studies/rare_class)


def check_same(ours: DataCard, our_file: Path, theirs: DataCard, file: Path, *more: str) -> None:
    """Refuse a file with other images or classes than ours; `more` names further data card fields that must match.

    Raises:
        UserError: a field differs; the message names it.
    """
    for fact in ("shape", "classes", *more):
        expected, found = (shown(str(getattr(card, fact)), 200) for card in (ours, theirs))
        if getattr(theirs, fact) != getattr(ours, fact):
            raise UserError(
                f"{file}: its data card has {fact} {found}, where {our_file} has {expected}; "
                "use files made from one data set"
            )


def counts_of(processed: Processed) -> list[int]:
    """Count the images of each class."""
    counts: list[int] = processed.split.labels.bincount(minlength=len(processed.card.classes)).tolist()
    return counts


def missing(train: Processed, target: int | None, labels: tuple[int, ...]) -> dict[int, int]:
    """Count the images that each class in `labels` lacks to reach `target`, by default the size of the largest class.

    Raises:
        UserError: such a class has no image at all.
    """
    counts = counts_of(train)
    target = target or max(counts)
    if none := [train.card.classes[label] for label in labels if not counts[label]]:
        raise UserError(f"--classes: there is no training image of {listed(none)}; name only the other classes")
    return {label: target - counts[label] for label in labels if counts[label] < target}


def warn_of_set(train: Processed, test: Processed, card: ModelCard, wanted: dict[int, int]) -> None:
    """Warn where the model, or too few images, may disappoint."""
    for part, processed in (("train", train), ("test", test)):
        if none := [
            name for name, count in zip(processed.card.classes, counts_of(processed), strict=True) if not count
        ]:
            warn(f"no images of {listed(none)} for {part}: without their folders, ImageFolder renumbers the others")
    counts = counts_of(train)
    for label in wanted:
        name, seen = f"class {shown(train.card.classes[label], 100)}", card.class_counts[label]
        if seen != counts[label]:
            warn(f"{name}: the model has seen {seen} training images, not {counts[label]}; copies of others may stay")
        if counts[label] < MEMORISED_BELOW:
            warn(f"{name}: with only {counts[label]} training images, some samples may be copies, which are dropped")


def warn(text: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {text}", file=sys.stderr)
