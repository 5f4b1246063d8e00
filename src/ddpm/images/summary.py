"""Write the two splits, their summary, and a report for the user."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.decoded import Images, named
from ddpm.images.folders import Folder, of_ignored
from ddpm.images.near_duplicates import MOST_SEARCHED
from ddpm.images.splits import save_split, to_float
from ddpm.images.splitting import Sides, in_two_classes

PIXEL_VALUES = 256
SMALL_SET = 2000  # training images; fewer get a note


def write_split(path: Path, card: DataCard, images: Images, sides: Sides, chosen: Tensor) -> dict[str, Any]:
    """Write the images of one side, given by a mask (N,), and return their summary."""
    classes = len(card.classes)
    labels, levels = images.labels[chosen], torch.zeros(PIXEL_VALUES, dtype=torch.long)
    groups = (chosen.cumsum(0) - 1)[sides.groups[chosen]]
    tested = images.labels[sides.test].bincount(minlength=classes).tolist()
    digest = hashlib.sha256()
    for facts in (images.keys, images.labels):
        digest.update(facts[~sides.test].numpy().data)
    card = card.model_copy(update={"images_hash": digest.hexdigest()})
    save_split(path, card, labels, groups, tested, _counted(images.take(chosen), levels))
    mean, deviation = statistics_of(levels)
    return {
        "images": len(labels),
        "pixel_mean": round(mean, 6),
        "pixel_deviation": round(deviation, 6),
        "label_counts": dict(zip(card.classes, labels.bincount(minlength=classes).tolist(), strict=True)),
    }


def statistics_of(counts: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of pixels in [-1, 1] from the counts of levels (PIXEL_VALUES,)."""
    values = to_float(torch.arange(PIXEL_VALUES)).double()
    total = counts.sum()
    mean = (counts * values).sum() / total
    variance = (counts * (values - mean).square()).sum() / (total - 1)
    return float(mean), float(variance.sqrt())


def repetitions(images: Images, sides: Sides) -> dict[str, int | None]:
    """Count equal images and near-duplicates; these are None among too many images, see MOST_SEARCHED.

    equal_in_both: test images that are equal to training images.
    near_in_both: test images that are near-duplicates of training images, equal ones included.
    with_near_duplicates: images in the group of a near-duplicate on their side.
    in_two_classes: images that more than one class has.
    """
    test = sides.test
    return {
        "equal_in_both": int(torch.isin(images.keys[test], images.keys[~test]).sum()),
        "near_in_both": sides.near,
        "with_near_duplicates": None if sides.near is None else int((sides.groups != torch.arange(len(test))).sum()),
        "in_two_classes": len(in_two_classes(images)),
    }


def report(summary: dict[str, Any], folder: Folder, images: Images) -> None:
    """Print the choices made from the images, the counts, and warnings."""
    for name, text in summary["chosen"].items():
        print(f"{name}: {text}")
    train, test = summary["train"]["images"], summary["test"]["images"]
    how = "the folder's own" if folder.tested else "chosen by hashes of the files"
    print(f"{len(folder.classes)} classes, {train:,} training images, {test:,} test images, {how}")
    if folder.ignored:
        print(of_ignored(folder.ignored))
    if summary["near_in_both"] is None:
        print(f"note: near-duplicates are not searched for among more than {MOST_SEARCHED:,} images; equal files are")
    if repeated := summary["with_near_duplicates"]:
        print(f"{repeated} images are near-duplicates of others on the same side")
    if near := summary["near_in_both"]:
        equal = summary["equal_in_both"]
        print(
            f"warning: {near} test images are equal ({equal}) or near-duplicates of training images; scores are biased"
        )
    if twice := summary["in_two_classes"]:
        pairs = [" = ".join(named(folder.pictures, index) for index in pair) for pair in in_two_classes(images)[:2]]
        print(f"warning: {twice} images are in more than one class, such as {', '.join(pairs)}")
    if train < SMALL_SET:
        print(f"note: only {train:,} training images; see docs/how-to/own-images.md for what to expect")


def _counted(parts: Iterator[Tensor], counts: Tensor) -> Iterator[Tensor]:
    """Yield uint8 parts unchanged, and add the count of each level to counts (PIXEL_VALUES,)."""
    for part in parts:
        counts += part.flatten().bincount(minlength=PIXEL_VALUES)
        yield part
