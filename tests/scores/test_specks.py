"""Lone specks on images that are drawn by hand."""

import torch

from ddpm.scores.specks import has_specks, may_have_specks


def test_a_pixel_without_a_neighbour_is_a_speck() -> None:
    images = torch.zeros(6, 1, 5, 5, dtype=torch.uint8)
    images[1, 0, 2, 2] = 1  # as faint as can be
    images[2, 0, 0, 4] = 255  # in a corner
    images[3, 0, 2, 2] = images[3, 0, 3, 3] = 9  # two that touch at a corner
    images[4, 0, 1, 1:4] = 200
    images[5, 0, 1, 1:4] = 200
    images[5, 0, 4, 0] = 3  # beside a stroke
    assert has_specks(images).tolist() == [False, True, True, False, False, True]


def test_only_grey_images_on_black_have_specks() -> None:
    black = torch.zeros(2, 1, 10, 10, dtype=torch.uint8)
    black[..., :6] = 80
    assert may_have_specks(black)
    assert not may_have_specks(255 - black)
    assert not may_have_specks(black.expand(-1, 3, -1, -1))
