"""What came of the preprocessing: the two files, their description, and what a user would want to know."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.images.card import DataCard, listed
from ddpm.images.pixels import to_float
from ddpm.images.splits import LEAST_TEST, save_split
from ddpm.ingest.decoded import Images, named
from ddpm.ingest.folders import Folder
from ddpm.ingest.splitting import Sides, in_two_classes

LEVELS = 256
FEW = 2000


def write_split(path: Path, card: DataCard, images: Images, sides: Sides, chosen: Tensor) -> dict[str, Any]:
    """Write the images that a mask (N,) chooses, all of one side, and describe them."""
    classes = len(card.classes)
    labels, levels = images.labels[chosen], torch.zeros(LEVELS, dtype=torch.long)
    groups = (chosen.cumsum(0) - 1)[sides.groups[chosen]]
    tested = images.labels[sides.test].bincount(minlength=classes).tolist()
    save_split(path, card, labels, groups, tested, _counted(images.take(chosen), levels))
    mean, deviation = statistics_of(levels)
    return {
        "images": len(labels),
        "pixel_mean": round(mean, 6),
        "pixel_deviation": round(deviation, 6),
        "label_counts": dict(zip(card.classes, labels.bincount(minlength=classes).tolist(), strict=True)),
    }


def statistics_of(counts: Tensor) -> tuple[float, float]:
    """Return mean and deviation of pixels in [-1, 1] from how often each level occurs, (LEVELS,)."""
    values = to_float(torch.arange(LEVELS)).double()
    total = counts.sum()
    mean = (counts * values).sum() / total
    variance = (counts * (values - mean).square()).sum() / (total - 1)
    return float(mean), float(variance.sqrt())


def repetitions(images: Images, sides: Sides) -> dict[str, int]:
    """Count what stands more than once in a set.

    equal_in_both, near_in_both: test images that are equal, or equal or nearly so, to training images. with_twins:
    images that go with a near-duplicate on their side. in_two_classes: pictures that more than one class has.
    """
    test = sides.test
    return {
        "equal_in_both": int(torch.isin(images.keys[test], images.keys[~test]).sum()),
        "near_in_both": sides.near,
        "with_twins": int((sides.groups != torch.arange(len(test))).sum()),
        "in_two_classes": len(in_two_classes(images)),
    }


def report(summary: dict[str, Any], folder: Folder, images: Images) -> None:
    """Say what followed from the images, a line each, and what a user would want to know of them."""
    for name, text in summary["follows"].items():
        print(f"{name}: {text}")
    train, test = summary["train"]["images"], summary["test"]["images"]
    how = "the folder's own" if folder.test is not None else "held out by their content"
    print(f"{len(folder.classes)} classes, {train:,} training images, {test:,} test images, {how}")
    if folder.ignored:
        print(f"ignored, for they are no pictures: {len(folder.ignored)}, such as {folder.ignored[0]}")
    few = [name for name, count in summary["test"]["label_counts"].items() if count < LEAST_TEST]
    if few and len(folder.classes) > 1:
        print(f"note: fewer than {LEAST_TEST} test images, too few to train on these alone: {listed(few)}")
    if twins := summary["with_twins"]:
        print(f"{twins} images are equal or nearly equal to others, which are on the same side")
    if near := summary["near_in_both"]:
        equal = summary["equal_in_both"]
        print(
            f"warning: {near} test images are equal ({equal}) or nearly equal to training images; their scores flatter"
        )
    if twice := summary["in_two_classes"]:
        pairs = [" = ".join(named(folder.pictures, index) for index in pair) for pair in in_two_classes(images)[:2]]
        print(f"warning: {twice} pictures are in more than one class, such as {', '.join(pairs)}")
    if train < FEW:
        print(f"note: {train:,} training images are few; docs/images.md says what to expect")


def _counted(parts: Iterator[Tensor], counts: Tensor) -> Iterator[Tensor]:
    """Hand uint8 parts on, and add how often each level stands in them to counts (LEVELS,)."""
    for part in parts:
        counts += part.flatten().bincount(minlength=LEVELS)
        yield part
