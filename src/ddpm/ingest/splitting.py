"""Which images are for testing: those of the folder's own test/, or a share of all by their content."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.splits import LEAST_TEST
from ddpm.ingest.decoded import Images
from ddpm.ingest.folders import Folder
from ddpm.ingest.near_duplicates import twin_groups
from ddpm.ingest.preparation import DataParams
from ddpm.pipeline.console import UserError

LEAST_TRAIN = 2 * LEAST_TEST


class Sides(NamedTuple):
    """The two sides of a split of N images.

    test: which are test images (N,). groups: of each image the index of the one, on its side, that decides where
    near-duplicates go (N,). near: how many test images are equal, or nearly, to training images.
    """

    test: Tensor
    groups: Tensor
    near: int


def split_images(images: Images, folder: Folder, params: DataParams) -> Sides:
    """Split the images of a folder; near-duplicates are on one side where the folder leaves the choice."""
    every = torch.arange(len(images.labels))
    own = every >= len(folder.train)  # of the folder's own test/
    groups = twin_groups(images.thumbnails, images.ranks + own)  # a test image decides for no training image
    if folder.test is None:
        return Sides(images.places[groups] < params.test, groups, 0)
    return Sides(own, torch.where(own, every, groups), int((own & ~own[groups]).sum()))


def check_counts(card: DataCard, images: Images, sides: Sides, folder: Folder, params: DataParams) -> None:
    """Refuse a split that later stages could do nothing with.

    Raises:
        UserError: a class has no training image, or a side has too few.
    """
    train, test = images.labels[~sides.test], images.labels[sides.test]
    for name, count in zip(card.classes, train.bincount(minlength=len(card.classes)).tolist(), strict=True):
        if not count:
            raise UserError(f"data.set: {params.set} leaves no training images of {name}; add some, or see data.test")
    for split, labels, least in (("train", train, LEAST_TRAIN), ("test", test, LEAST_TEST)):
        if len(labels) < least:
            other = _other_share(images.places[sides.groups]) if folder.test is None else ""
            raise UserError(
                f"data.set: {params.set} gives {len(labels)} {split} images, and at least {least} are needed; add "
                f"images{other}"
            )


def in_two_classes(images: Images) -> list[tuple[int, int]]:
    """Find equal images of different classes: two indices for each such picture."""
    order = torch.argsort(images.labels, stable=True)
    order = order[torch.argsort(images.keys[order], stable=True)]
    first, second = order[:-1], order[1:]
    found = (images.keys[first] == images.keys[second]) & (images.labels[first] != images.labels[second])
    pairs: dict[float, tuple[int, int]] = {}
    for a, b in zip(first[found].tolist(), second[found].tolist(), strict=True):
        pairs.setdefault(float(images.keys[a]), (a, b))
    return sorted(pairs.values())


def _other_share(places: Tensor) -> str:
    """Name a share of images with these places (N,) that would do, if any."""
    for percent in range(1, 51):
        test = int((places < percent / 100).sum())
        if test >= LEAST_TEST and len(places) - test >= LEAST_TRAIN:
            return f", or set data.test to {percent / 100:g}"
    return ""
