"""Split images into train and test: by the folder's own test/, or by hashes of their files."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.decoded import Images
from ddpm.images.folders import Folder
from ddpm.images.near_duplicates import near_duplicate_groups
from ddpm.images.splits import LEAST_TEST
from exact_stages.console import UserError

LEAST_TRAIN = 2 * LEAST_TEST


class Sides(NamedTuple):
    """The two sides of a split of N images.

    test: the mask of test images, (N,).
    groups: for each image, the index of the near-duplicate on its side that decides for its group, (N,).
    near: the number of test images that are near-duplicates of training images; None if they were not searched for.
    """

    test: Tensor
    groups: Tensor
    near: int | None


def split_images(images: Images, folder: Folder, share: float) -> Sides:
    """Split the images of a folder; without a test folder, hold out a share, and near-duplicates share a side.

    Equal files share a side even among too many images to search for near-duplicates.
    """
    every = torch.arange(len(images.labels))
    tested = every >= len(every) - folder.tested  # the folder's own
    if images.thumbnails is None:
        return Sides(tested if folder.tested else images.places < share, every, None)
    # No test image decides for training images.
    groups = near_duplicate_groups(images.thumbnails, images.ranks + tested)
    if not folder.tested:
        return Sides(images.places[groups] < share, groups, 0)
    return Sides(tested, torch.where(tested, every, groups), int((tested & ~tested[groups]).sum()))


def check_counts(card: DataCard, images: Images, sides: Sides, folder: Folder, source: str) -> None:
    """Check that both sides have enough images for the later stages.

    Raises:
        UserError: a class has no training images, or a side has too few images.
    """
    train, test = images.labels[~sides.test], images.labels[sides.test]
    for name, count in zip(card.classes, train.bincount(minlength=len(card.classes)).tolist(), strict=True):
        if not count:
            raise UserError(f"data.set: {source} leaves no training images of {name}; add some, or lower data.test")
    for split, labels, least in (("train", train, LEAST_TRAIN), ("test", test, LEAST_TEST)):
        if len(labels) < least:
            share = ", or change data.test; near-duplicates stay on one side" if not folder.tested else ""
            few = f"{len(labels)} {split} images, fewer than {least}"
            raise UserError(f"data.set: {source} gives {few}; add images{share}")


def in_two_classes(images: Images) -> list[tuple[int, int]]:
    """Return pairs of indices of equal images in different classes, one pair for each image."""
    order = torch.argsort(images.labels, stable=True)
    order = order[torch.argsort(images.keys[order], stable=True)]
    first, second = order[:-1], order[1:]
    found = (images.keys[first] == images.keys[second]) & (images.labels[first] != images.labels[second])
    pairs: dict[float, tuple[int, int]] = {}
    for a, b in zip(first[found].tolist(), second[found].tolist(), strict=True):
        pairs.setdefault(float(images.keys[a]), (a, b))
    return sorted(pairs.values())
