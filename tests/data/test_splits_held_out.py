"""Which images are held out: a share of each class, by their content alone."""

import hashlib

import pytest
import torch
from torch import Tensor

from ddpm.data.images import to_float
from ddpm.data.splits import held_out_mask


def levels(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def by_hand(image: Tensor, share: float, seed: int) -> bool:
    """The definition, word by word."""
    digest = hashlib.blake2b(bytes(image.flatten().tolist()), digest_size=8, key=f"{seed}/held out".encode())
    return int(digest.hexdigest(), 16) / 2**64 < share


@pytest.mark.parametrize(("share", "seed"), [(0.5, 0), (0.1, 0), (0.5, 2**64 - 1)])
def test_images_are_held_out_by_their_hash(share: float, seed: int) -> None:
    images = levels(200)
    found = held_out_mask(images, share, seed)
    assert found.tolist() == [by_hand(image, share, seed) for image in images]
    assert 0 < found.sum() < 200


def test_the_images_held_out_are_the_same_everywhere() -> None:
    plain = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(-1, 1, 28, 28)
    assert held_out_mask(plain, 0.3, 0).nonzero().flatten().tolist() == [2, 5, 6, 8, 15, 17]
    assert held_out_mask(plain, 0.3, 1).nonzero().flatten().tolist() == [5, 12, 13, 16, 17, 18, 19]


def test_none_and_a_larger_share() -> None:
    images = levels(3000)
    none, some, more = (held_out_mask(images, share, 0) for share in (0, 0.1, 0.2))
    assert not none.any()
    assert more[some].all()
    assert held_out_mask(images[:0], 0.5, 0).shape == (0,)
    assert some.sum().item() == pytest.approx(300, abs=4 * 16.4)
    assert more.sum().item() == pytest.approx(600, abs=4 * 21.9)


def test_equal_images_are_on_one_side_and_an_added_one_moves_no_other() -> None:
    images = levels(300)
    before = held_out_mask(images, 0.3, 0)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(held_out_mask(images[order], 0.3, 0), before[order])
    assert torch.equal(held_out_mask(torch.cat([levels(50, seed=9), images, images]), 0.3, 0)[50:], before.repeat(2))
    assert torch.equal(held_out_mask(images[::2], 0.3, 0), before[::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_form_of_the_images_does_not_matter(dtype: torch.dtype) -> None:
    images = levels(300)
    assert torch.equal(held_out_mask(to_float(images).to(dtype), 0.3, 0), held_out_mask(images, 0.3, 0))
    apart = images.expand(-1, 2, 28, 28)[:, :1]  # not contiguous in memory
    assert torch.equal(held_out_mask(apart, 0.3, 0), held_out_mask(images, 0.3, 0))


def test_parts_change_nothing() -> None:
    images = levels(10_300)
    assert torch.equal(held_out_mask(images, 0.3, 0)[9_900:], held_out_mask(images[9_900:], 0.3, 0))


def test_every_class_gives_its_share_wherever_it_stands_in_the_file() -> None:
    images, labels = levels(20_000), torch.arange(20_000) // 2000  # one class after the other
    held_out = labels[held_out_mask(images, 0.05, 0)].bincount(minlength=10)
    assert (held_out - 100).abs().max() < 4 * 9.75  # binomial
    assert held_out.sum().item() == pytest.approx(1000, abs=4 * 30.8)


def test_another_seed_holds_out_others() -> None:
    images = levels(4000)
    first, second = held_out_mask(images, 0.5, 0), held_out_mask(images, 0.5, 1)
    assert (first & second).sum().item() == pytest.approx(1000, abs=4 * 27.4)  # independent of one another
