"""Which images are held out: a share of each class, by their content alone, and twins together."""

import hashlib

import pytest
import torch
from torch import Tensor

from ddpm.images.splits import hashed_places, held_out_mask
from ddpm.ingest.near_duplicates import thumbnails, twin_groups


def levels(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def mask_of(images: Tensor, share: float, seed: int) -> Tensor:
    """Where no image is another's twin."""
    return held_out_mask(images, torch.arange(len(images)), share, seed)


def by_hand(image: Tensor, share: float, seed: int) -> bool:
    """The definition, word by word."""
    digest = hashlib.blake2b(bytes(image.flatten().tolist()), digest_size=8, key=f"{seed}/held out".encode())
    return int(digest.hexdigest(), 16) / 2**64 < share


@pytest.mark.parametrize(("share", "seed"), [(0.5, 0), (0.1, 0), (0.5, 2**64 - 1)])
def test_images_are_held_out_by_their_hash(share: float, seed: int) -> None:
    images = levels(200)
    found = mask_of(images, share, seed)
    assert found.tolist() == [by_hand(image, share, seed) for image in images]
    assert 0 < found.sum() < 200


def test_the_images_held_out_are_the_same_everywhere() -> None:
    plain = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(-1, 1, 28, 28)
    assert mask_of(plain, 0.3, 0).nonzero().flatten().tolist() == [2, 5, 6, 8, 15, 17]
    assert mask_of(plain, 0.3, 1).nonzero().flatten().tolist() == [5, 12, 13, 16, 17, 18, 19]


def test_none_and_a_larger_share() -> None:
    images = levels(3000)
    none, some, more = (mask_of(images, share, 0) for share in (0, 0.1, 0.2))
    assert not none.any()
    assert more[some].all()
    assert mask_of(images[:0], 0.5, 0).shape == (0,)
    assert some.sum().item() == pytest.approx(300, abs=4 * 16.4)
    assert more.sum().item() == pytest.approx(600, abs=4 * 21.9)


def test_equal_images_are_on_one_side_and_an_added_one_moves_no_other() -> None:
    images = levels(300)
    before = mask_of(images, 0.3, 0)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mask_of(images[order], 0.3, 0), before[order])
    assert torch.equal(mask_of(torch.cat([levels(50, seed=9), images, images]), 0.3, 0)[50:], before.repeat(2))
    assert torch.equal(mask_of(images[::2], 0.3, 0), before[::2])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 8)])
def test_the_layout_of_the_images_in_memory_does_not_matter(shape: tuple[int, int, int]) -> None:
    images = torch.randint(0, 256, (300, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = [by_hand(image, 0.3, 0) for image in images]
    apart = torch.stack([images, images + 1], dim=4)[..., 0]
    for each in (images, apart, images.contiguous(memory_format=torch.channels_last)):
        assert mask_of(each, 0.3, 0).tolist() == expected
    assert not apart.is_contiguous()


def test_parts_change_nothing() -> None:
    images = levels(10_300)
    assert torch.equal(mask_of(images, 0.3, 0)[9_900:], mask_of(images[9_900:], 0.3, 0))


def test_every_class_gives_its_share_wherever_it_stands_in_the_file() -> None:
    images, labels = levels(20_000), torch.arange(20_000) // 2000  # one class after the other
    held_out = labels[mask_of(images, 0.05, 0)].bincount(minlength=10)
    assert (held_out - 100).abs().max() < 4 * 9.75  # binomial
    assert held_out.sum().item() == pytest.approx(1000, abs=4 * 30.8)


def test_another_seed_holds_out_others() -> None:
    images = levels(4000)
    first, second = mask_of(images, 0.5, 0), mask_of(images, 0.5, 1)
    assert (first & second).sum().item() == pytest.approx(1000, abs=4 * 27.4)  # independent of one another


def test_an_image_goes_where_its_group_goes() -> None:
    images = levels(200)
    groups = torch.arange(200) // 5 * 5 + 3  # each five follow the fourth
    found = held_out_mask(images, groups, 0.5, 0)
    assert torch.equal(found, mask_of(images, 0.5, 0)[groups])
    assert found.view(40, 5).sum(1).unique().tolist() == [0, 5]


def test_twins_are_on_one_side_and_an_image_that_is_added_moves_no_other() -> None:
    images = torch.cat([levels(200), levels(100)])
    images[200:, :, 10:20] ^= 1  # no bytes are equal any more
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    images = images[order]

    def held_out(given: Tensor) -> Tensor:
        return held_out_mask(given, twin_groups(thumbnails(given), hashed_places(given, "test")), 0.4, 0)

    found = held_out(images)
    where = order.argsort()
    assert torch.equal(found[where[:100]], found[where[200:]])
    assert found.sum().item() == pytest.approx(120, abs=4 * 9.8)  # of 100 pairs and 100 others
    assert torch.equal(held_out(torch.cat([levels(40, seed=9), images]))[40:], found)


def test_a_place_is_of_key_and_content() -> None:
    images = levels(3)
    assert hashed_places(images, "a").dtype == torch.float64
    assert not torch.equal(hashed_places(images, "a"), hashed_places(images, "b"))
    assert torch.equal(hashed_places(images[[2, 0]], "a"), hashed_places(images, "a")[[2, 0]])
    assert hashed_places(images[:0], "a").shape == (0,)
