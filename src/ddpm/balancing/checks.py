"""What is wanted of a model and of an imbalanced set: how many images, of which classes, and whether all files fit."""

import sys
from pathlib import Path

from ddpm.images.card import DataCard, listed
from ddpm.images.splits import Processed
from ddpm.networks.checkpoint import ModelCard
from ddpm.pipeline.console import UserError, shown

FEW = 20  # training images, of which a model may have learned little more than themselves


def check_same(ours: DataCard, our_file: Path, theirs: DataCard, file: Path, *more: str) -> None:
    """Refuse a file of other images or classes; `more` of the data card must be equal, too.

    Raises:
        UserError: it is; the message says of which.
    """
    for fact in ("shape", "classes", *more):
        expected, found = (shown(str(getattr(card, fact)), 200) for card in (ours, theirs))
        if getattr(theirs, fact) != getattr(ours, fact):
            raise UserError(
                f"{file}: its data card has {fact} {found}, where {our_file} has {expected}; "
                "give files that were made of one data set"
            )


def counts_of(processed: Processed) -> list[int]:
    """Count the images of each class."""
    counts: list[int] = processed.split.labels.bincount(minlength=len(processed.card.classes)).tolist()
    return counts


def missing(train: Processed, target: int | None, labels: tuple[int, ...]) -> dict[int, int]:
    """Count the images that each of these classes lacks, if any, to have `target`, or as many as the most frequent.

    Raises:
        UserError: such a class has no image at all.
    """
    counts = counts_of(train)
    target = target or max(counts)
    if none := [train.card.classes[label] for label in labels if not counts[label]]:
        raise UserError(f"--classes: there is no training image of {listed(none)}; name the others")
    return {label: target - counts[label] for label in labels if counts[label] < target}


def warn_of_set(train: Processed, test: Processed, card: ModelCard, wanted: dict[int, int]) -> None:
    """Say where the model, or too few images, may disappoint."""
    for part, processed in (("train", train), ("test", test)):
        if none := [
            name for name, count in zip(processed.card.classes, counts_of(processed), strict=True) if not count
        ]:
            warn(f"no images of {listed(none)} for {part}: without their folders, ImageFolder numbers the others anew")
    counts = counts_of(train)
    for label in wanted:
        name, seen = f"class {shown(train.card.classes[label], 100)}", card.class_counts[label]
        if seen != counts[label]:
            warn(f"{name}: the model has seen {seen} training images, not {counts[label]}: copies of others may stay")
        if counts[label] < FEW:
            warn(f"{name}: of {counts[label]} training images a model may have learned little more than these")


def warn(text: str) -> None:
    """Print a warning beside the results."""
    print(f"warning: {text}", file=sys.stderr)
