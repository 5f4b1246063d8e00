"""Groups of images that are equal, or nearly."""

import pytest
import torch
from torch import Tensor

from ddpm.ingest.near_duplicates import CHUNK, NEAR, thumbnails, twin_groups
from tests.small import DIGITS, FRUITS

SHAPES = [DIGITS.shape, FRUITS.shape, (1, 8, 8), (1, 2, 40)]


def blots(count: int, shape: tuple[int, int, int] = DIGITS.shape, seed: int = 0) -> Tensor:
    """Images of coarse random patches, none like another, and of levels between 20 and 236."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randint(20, 236, (count, shape[0], 4, 4), generator=source, dtype=torch.uint8)
    rows, columns = (torch.arange(side) * 4 // side for side in shape[1:])
    return coarse[:, :, rows][..., columns]


def places(count: int, seed: int = 5) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def groups_of(images: Tensor, where: Tensor | None = None) -> list[int]:
    return twin_groups(thumbnails(images), places(len(images)) if where is None else where).tolist()


def alone(count: int) -> list[int]:
    return list(range(count))


def together(groups: list[int]) -> set[frozenset[int]]:
    """Who belongs together."""
    return {frozenset(index for index, each in enumerate(groups) if each == group) for group in groups}


def test_a_thumbnail_is_the_means_of_patches() -> None:
    images = torch.arange(3 * 16 * 8, dtype=torch.uint8).view(1, 3, 16, 8)  # 0..255, and 0..127 again
    expected = torch.empty(3, 8, 8, dtype=torch.float64)
    for channel in range(3):
        for row in range(8):
            for column in range(8):
                levels = images[0, channel, 2 * row : 2 * row + 2, column].double()
                expected[channel, row, column] = levels.mean() / 127.5 - 1
    found = thumbnails(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.view(1, 192), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "width"), [((1, 28, 28), 64), ((3, 256, 100), 192), ((1, 4, 20), 32), ((3, 1, 1), 3)]
)
def test_a_thumbnail_is_no_larger_than_its_image(shape: tuple[int, int, int], width: int) -> None:
    assert thumbnails(torch.full((2, *shape), 255, dtype=torch.uint8)).tolist() == [[1.0] * width] * 2


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_images_are_one_group_named_by_the_least_place(shape: tuple[int, int, int]) -> None:
    images = blots(5, shape)[[0, 1, 0, 2, 1, 0, 3, 4]]
    where = torch.tensor([0.5, 0.6, 0.3, 0.1, 0.7, 0.9, 0.2, 0.4], dtype=torch.float64)
    assert groups_of(images, where) == [2, 1, 2, 3, 1, 2, 6, 7]
    assert groups_of(images, 1 - where) == [5, 4, 5, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_that_differ_are_each_their_own(shape: tuple[int, int, int]) -> None:
    assert groups_of(blots(300, shape)) == alone(300)
    assert groups_of(blots(1, shape)) == [0]
    assert groups_of(blots(0, shape)) == []


@pytest.mark.parametrize("level", [0, 50, 255])
def test_images_of_one_level_are_twins_of_their_neighbours_alone(level: int) -> None:
    """These deviate from their mean by 86 levels, so that twins differ by less than 1.72."""
    step = -1 if level == 255 else 1
    plain = torch.tensor([level + step * each for each in (0, 1, 3, 200)], dtype=torch.uint8)
    groups = groups_of(plain.view(4, 1, 1, 1).expand(4, 3, 16, 8))
    assert together(groups) == {frozenset({0, 1}), frozenset({2}), frozenset({3})}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_resampling_or_compression_leaves_of_an_image_is_its_twin(shape: tuple[int, int, int]) -> None:
    images = blots(20, shape)
    noise = torch.randint(-1, 2, images.shape, generator=torch.Generator().manual_seed(1))
    changed = (images + noise).to(torch.uint8)
    groups = groups_of(torch.cat([images, changed]))
    assert together(groups) == {frozenset({index, index + 20}) for index in range(20)}


@pytest.mark.parametrize(("scale", "level"), [(0.8, 0.0), (0.1, 0.0), (0.1, 0.9), (0.01, -0.9)])
def test_the_distance_that_decides_is_that_of_the_thumbnails_beside_their_deviation(scale: float, level: float) -> None:
    """So neither contrast nor brightness of a set matters."""
    base = torch.linspace(-scale, scale, 64)
    deviation = float((8 / 9 * base.square().mean()).sqrt())  # of two like this, and one that is its negative
    for share, groups in ((0.95 * NEAR, 2), (1.05 * NEAR, 3)):
        tables = torch.stack([base, base, -base])
        tables[1] += share * deviation * torch.tensor([1.0, -1.0]).repeat(32)  # of the same mean
        assert len(together(twin_groups(tables + level, places(3)).tolist())) == groups


@pytest.mark.parametrize("shape", [DIGITS.shape, FRUITS.shape])
def test_faint_images_that_differ_are_each_their_own(shape: tuple[int, int, int]) -> None:
    """Of four levels; that of a patch is another in some."""
    faint = 100 + blots(300, shape) // 64
    assert groups_of(faint) == alone(300)
    assert groups_of(torch.cat([faint, faint[[7, 2]]]), torch.arange(302).double()) == [*alone(300), 7, 2]


def test_images_of_equal_means_that_differ_are_no_twins() -> None:
    levels = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    levels.view(64, 64).fill_diagonal_(255)  # one white pixel, each elsewhere
    assert groups_of(levels) == alone(64)


def mixed(count: int, seed: int = 0) -> Tensor:
    """Images of which a third are equal to others, and a third nearly."""
    images = blots(count, FRUITS.shape, seed)
    nearly = images.clone()
    nearly[:, :, 4:8] += 2
    return torch.cat([images, images[::2], nearly[::2], nearly[1::4]])


def test_the_order_of_the_images_does_not_matter_for_who_belongs_together() -> None:
    images = mixed(40)
    where = places(len(images))
    before = groups_of(images, where)
    assert len(together(before)) == 40
    for seed in range(3):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        after = groups_of(images[order], where[order])
        assert [int(order[group]) for group in after] == [before[index] for index in order.tolist()]


def test_an_added_image_changes_no_group_but_that_of_its_twins() -> None:
    images = mixed(40)
    where = places(len(images))
    before = groups_of(images, where)
    other, twin = blots(1, FRUITS.shape, seed=9), images[7:8]
    for place in (0.0, 1.0):
        added = torch.cat([torch.tensor([place], dtype=torch.float64), where])
        moved = [group + 1 for group in before]
        assert groups_of(torch.cat([other, images]), added) == [0, *moved]
        after = groups_of(torch.cat([twin, images]), added)
        mine = moved[7]
        led = 0 if place == 0.0 else mine
        assert after == [led, *(led if group == mine else group for group in moved)]


def test_a_group_s_name_is_of_its_own_and_of_the_least_place() -> None:
    images = mixed(200)
    where = places(len(images))
    groups = groups_of(images, where)
    for members in together(groups):
        assert {groups[each] for each in members} == {min(members, key=where.tolist().__getitem__)}


def test_twins_far_apart_in_the_file_are_found_over_many_parts() -> None:
    images = blots(3 * CHUNK // 2, (1, 8, 8))
    count = len(images)
    groups = groups_of(images.repeat(2, 1, 1, 1), torch.arange(2 * count).double())
    assert groups == alone(count) * 2


def test_a_thousand_equal_images_are_one_group() -> None:
    images = blots(1, (1, 8, 8)).expand(2 * CHUNK + 3, -1, -1, -1)
    assert groups_of(images, torch.arange(len(images)).double().flip(0)) == [len(images) - 1] * len(images)


@pytest.mark.parametrize("level", [0, 37, 120, 255])
@pytest.mark.parametrize("count", [2, 3, 1000])
def test_a_set_of_one_image_again_and_again_is_one_group(level: int, count: int) -> None:
    """Its thumbnails do not deviate from their mean at all."""
    images = torch.full((count, 3, 16, 8), level, dtype=torch.uint8)
    assert groups_of(images, torch.arange(count).double()) == [0] * count
