"""Long-tailed subsets: all classes are treated alike, and nothing that tests or validates is learned from."""

import pytest
import torch

from ddpm.images.card import DataCard
from ddpm.images.splits import Split, SplitFile
from exact_stages.console import UserError
from studies.rare_class.generating import make_subset

COUNTS = (2, 3, 5, 8)
CARD = DataCard(name="levels", shape=(1, 1, 2), classes=("a", "b", "c", "d"))


def numbered(of_class: int) -> SplitFile:
    """Images that are all different; the last two of each class are near-duplicates."""
    count = 4 * of_class
    numbers = torch.arange(count)
    groups = torch.where(numbers >= count - 4, numbers - 4, numbers)
    images = torch.stack([numbers // 256, numbers % 256], dim=1).to(torch.uint8).view(count, 1, 1, 2)
    return SplitFile(CARD, Split(images, numbers % 4), groups, (1,) * 4)


def numbers_of(split: Split) -> list[int]:
    return (split.images[..., 0].long() * 256 + split.images[..., 1]).flatten().tolist()


def test_each_class_has_each_count_once_and_subsets_are_the_same_each_time() -> None:
    one, other, *rest, again = (make_subset(numbered(20), COUNTS, 4, 8, number) for number in (0, 1, 2, 3, 0))
    assert all(sorted(each) == [*COUNTS] for each in zip(*(found.counts for found in (one, other, *rest)), strict=True))
    assert numbers_of(one.kept.split) == numbers_of(again.kept.split) != numbers_of(other.kept.split)


def test_parts_share_no_image_and_have_one_of_each_group_of_near_duplicates() -> None:
    train = numbered(14)
    subset = make_subset(train, COUNTS, pool=4, target=8, number=1)
    kept, pool, spare = subset.kept.split, subset.pool, subset.spare
    assert kept.labels.bincount().tolist() == subset.counts
    assert pool.labels.bincount().tolist() == [4] * 4
    assert (kept.labels.bincount() + spare.labels.bincount(minlength=4)).tolist() == [8] * 4
    leaders = [train.groups[each].item() for part in (kept, pool, spare) for each in numbers_of(part)]
    assert len({*leaders}) == len(leaders)
    assert subset.kept.groups.tolist() == [*range(18)]


def test_what_a_set_does_not_have_is_named() -> None:
    for counts, named in (((2, 3), "counts"), ((2, 3, 5, 17), "pool")):
        with pytest.raises(UserError, match=named):
            make_subset(numbered(20), counts, 4, 8, 0)
