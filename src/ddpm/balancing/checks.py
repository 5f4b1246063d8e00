"""What is wanted of a model and of an imbalanced set: how many images, of which classes, and whether all files fit."""

import sys
from pathlib import Path

from ddpm.balancing.filling import Tally
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
    for fact in ("shape", "classes", "value_range", *more):
        expected, found = getattr(ours, fact), getattr(theirs, fact)
        if found != expected:
            raise UserError(
                f"{file}: its data card has {fact} {shown(str(found), 200)}, where {our_file} has "
                f"{shown(str(expected), 200)}; give files that were made of one data set"
            )


def missing(train: Processed, target: int | None, labels: tuple[int, ...]) -> dict[int, int]:
    """How many images each of these classes lacks, if any, to have as many as the most frequent class, or `target`."""
    counts = train.split.labels.bincount(minlength=len(train.card.classes)).tolist()
    target = target or max(counts)
    return {label: target - counts[label] for label in labels if counts[label] < target}


def check_model(card: ModelCard, model_file: Path, train: Processed, data_file: Path, wanted: dict[int, int]) -> None:
    """Refuse a model that cannot draw what is wanted, and warn where it, or too few images, may disappoint.

    Raises:
        UserError: it does not know classes, or not one of these; or a class has no training image.
    """
    if not card.model.class_conditional:
        raise UserError(f"{model_file}: is not class-conditional, and cannot draw one class; train one that is")
    counts = train.split.labels.bincount(minlength=len(card.class_counts)).tolist()
    for label in wanted:
        name = f"class {shown(card.data.classes[label], 100)}"
        if not counts[label]:
            raise UserError(f"{data_file}: has no image of {name}; leave it out, with --classes")
        if not card.class_counts[label]:
            raise UserError(f"{model_file}: has not seen {name}; leave it out, with --classes, or train on it")
        if card.class_counts[label] != counts[label]:
            warn(
                f"{name}: the model has seen {card.class_counts[label]} training images, and {data_file} has "
                f"{counts[label]}: copies of others are not found"
            )
        if counts[label] < FEW:
            warn(
                f"{name}: of {counts[label]} training images a model may have learned little more than these; "
                "what is drawn may be much like them"
            )


def warn_of_absent(train: Processed, test: Processed) -> None:
    """Say which classes have no training or no test images: their folders are left out."""
    for part, processed in (("train", train), ("test", test)):
        counts = processed.split.labels.bincount(minlength=len(processed.card.classes)).tolist()
        if none := [name for name, count in zip(processed.card.classes, counts, strict=True) if not count]:
            warn(f"no images of {listed(none)} for {part}: without their folders, ImageFolder numbers the others anew")


def warn_of_lack(name: str, count: int, tally: Tally, wanted: int) -> None:
    """Say why a class with so many training images has not got all that were wanted, if it has not."""
    if tally.kept < wanted:
        warn(
            f"class {shown(name, 100)}: {count} training images; of {tally.candidates} drawn {tally.copies} were "
            f"copies and {tally.filtered} others were not taken for the class: {tally.kept} of {wanted} wanted are "
            "there; a model that was trained longer, or on more images, may give more"
        )


def warn(text: str) -> None:
    """Say it beside the results."""
    print(f"warning: {text}", file=sys.stderr)
