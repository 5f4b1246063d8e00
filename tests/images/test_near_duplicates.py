"""Groups of images that are equal, or nearly."""

import pytest
import torch
from torch import Tensor

from ddpm.images.near_duplicates import NEAR, near_duplicate_groups, thumbnails
from tests.small import DIGITS, FRUITS

SHAPES = [DIGITS.shape, FRUITS.shape, (1, 2, 40)]


def blots(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Images of coarse random patches, none like another, and of levels between 20 and 236."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randint(20, 236, (count, shape[0], 4, 4), generator=rng, dtype=torch.uint8)
    rows, columns = (torch.arange(side) * 4 // side for side in shape[1:])
    return coarse[:, :, rows][..., columns]


def places(count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def groups_of(images: Tensor, where: Tensor | None = None) -> list[int]:
    return near_duplicate_groups(thumbnails(images), places(len(images)) if where is None else where).tolist()


def together(groups: list[int]) -> set[frozenset[int]]:
    return {frozenset(index for index, each in enumerate(groups) if each == group) for group in groups}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_resampling_or_compression_leaves_of_an_image_is_its_near_duplicate(shape: tuple[int, int, int]) -> None:
    images = blots(20, shape)
    noise = torch.randint(-1, 2, images.shape, generator=torch.Generator().manual_seed(1))
    groups = groups_of(torch.cat([images, (images + noise).to(torch.uint8)]))
    assert together(groups) == {frozenset({index, index + 20}) for index in range(20)}


@pytest.mark.parametrize(("scale", "level"), [(0.8, 0.0), (0.1, 0.9)])
def test_the_distance_that_decides_is_that_of_the_thumbnails_beside_their_deviation(scale: float, level: float) -> None:
    """So neither contrast nor brightness of a set matters."""
    base = torch.linspace(-scale, scale, 64)
    deviation = float((8 / 9 * base.square().mean()).sqrt())  # of two like this, and one that is its negative
    for share, groups in ((0.95 * NEAR, 2), (1.05 * NEAR, 3)):
        tables = torch.stack([base, base, -base])
        tables[1] += share * deviation * torch.tensor([1.0, -1.0]).repeat(32)  # of the same mean
        assert len(together(near_duplicate_groups(tables + level, places(3)).tolist())) == groups


def test_the_order_of_images_changes_no_group() -> None:
    images = blots(40, FRUITS.shape)
    nearly = images.clone()
    nearly[:, :, 4:8] += 2
    images = torch.cat([images, images[::2], nearly[::2], nearly[1::4]])
    where = places(len(images))
    before = groups_of(images, where)
    assert len(together(before)) == 40
    for members in together(before):
        assert {before[each] for each in members} == {min(members, key=where.tolist().__getitem__)}
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    after = groups_of(images[order], where[order])
    assert [int(order[group]) for group in after] == [before[index] for index in order.tolist()]
