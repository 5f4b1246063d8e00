"""Which images are held out: a share of each class, by their content alone, and near-duplicates together."""

import pytest
import torch
from torch import Tensor

from ddpm.images.splits import Split, held_out_mask


def levels(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def one_class(images: Tensor) -> Split:
    return Split(images, torch.zeros(len(images), dtype=torch.int64))


def mask_of(images: Tensor, share: float, seed: int) -> Tensor:
    """Where no image is another's near-duplicate."""
    return held_out_mask(one_class(images), torch.arange(len(images)), share, seed)


def test_what_is_held_out_is_pinned() -> None:
    # A change here changes every result of the project.
    assert mask_of(levels(40), 0.2, 0).nonzero().flatten().tolist() == [0, 9, 13, 16, 19, 34]


def test_a_larger_share_holds_out_more_of_each_class_and_another_seed_others() -> None:
    images, labels = levels(4000), torch.arange(4000) // 1000  # one class after the other
    none, some, more, others = (mask_of(images, *given) for given in ((0, 0), (0.2, 0), (0.5, 0), (0.5, 1)))
    assert not none.any()
    assert more[some].all()
    assert (labels[more].bincount(minlength=4) - 500).abs().max() < 4 * 15.8  # binomial
    assert (more & others).sum().item() == pytest.approx(1000, abs=4 * 27.4)  # independent of one another
    assert mask_of(images[:0], 0.5, 0).shape == (0,)


def test_equal_images_are_on_one_side_and_an_added_one_moves_no_other() -> None:
    images = levels(300)
    before = mask_of(images, 0.3, 0)
    assert torch.equal(mask_of(torch.cat([levels(50, seed=9), images.flip(0), images]), 0.3, 0)[350:], before)
    assert torch.equal(mask_of(images.flip(0), 0.3, 0), before.flip(0))


def test_an_image_goes_where_its_group_goes() -> None:
    images = levels(200)
    groups = torch.arange(200) // 5 * 5 + 3  # each five follow the fourth
    found = held_out_mask(one_class(images), groups, 0.5, 0)
    assert torch.equal(found, mask_of(images, 0.5, 0)[groups])
    assert found.view(40, 5).sum(1).unique().tolist() == [0, 5]


def test_a_class_that_would_lose_all_its_images_loses_none() -> None:
    images, labels = levels(200), torch.zeros(200, dtype=torch.int64)
    before = mask_of(images, 0.5, 0)
    labels[before.nonzero()[:3]] = 1  # all three would be held out
    found = held_out_mask(Split(images, labels), torch.arange(200), 0.5, 0)
    assert torch.equal(found, before & (labels == 0))
