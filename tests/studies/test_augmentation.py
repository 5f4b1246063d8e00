"""Augmentation of the study of small sets: what is moved is told, and what is not moved stays."""

import torch

from studies.small_sets.augmentation import moved_images
from tests.small import images


def test_images_that_are_not_moved_stay_and_are_told_zeros() -> None:
    given = images(8, (3, 8, 8))
    moved, told = moved_images(given, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(moved, given)
    assert told.shape == (8, 6)
    assert not told.any()


def test_what_is_told_is_what_was_done() -> None:
    given = images(64, (3, 8, 8))
    moved, told = moved_images(given, 0.2, torch.Generator().manual_seed(0))
    still, flipped = ~told.any(1), told[:, 0].bool() & ~told[:, 1:].any(1)
    assert torch.equal(moved[still], given[still])
    assert torch.equal(moved[flipped], given[flipped].flip(3))
    assert 0 < still.sum() < 60
    assert flipped.any()
