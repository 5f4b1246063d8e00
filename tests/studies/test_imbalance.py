"""Classes are made rare: so many images are kept, by a seed, and what is left out is nowhere in what is kept."""

import pytest
import torch

from ddpm.images.splits import Processed, Split
from ddpm.pipeline.console import UserError
from studies.rare_class.imbalance import make_imbalanced
from tests.small import FRUITS


def processed(near_duplicates: bool = False) -> Processed:
    """20 images of each of three classes, whose first level is their index."""
    images = torch.zeros(60, *FRUITS.shape, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(60)
    groups = torch.arange(60)
    if near_duplicates:
        groups[30:60] = torch.arange(30)  # each image of the second half is a near-duplicate
    return Processed(FRUITS, Split(images, torch.arange(60) % 3), groups, (5, 6, 7))


def indices(part: Processed) -> list[int]:
    return part.split.images[:, 0, 0, 0].tolist()


def counted(part: Processed) -> list[int]:
    return part.split.labels.bincount(minlength=3).tolist()


def test_so_many_are_kept_and_so_many_are_in_the_validation_pool() -> None:
    kept, validation_pool = make_imbalanced(processed(), {1: 4}, 3, 0)
    assert counted(kept) == [17, 4, 17]
    assert counted(validation_pool) == [3, 3, 3]
    assert not {*indices(kept)} & {*indices(validation_pool)}
    for part in (kept, validation_pool):
        assert indices(part) == sorted(indices(part))
        assert [index % 3 for index in indices(part)] == part.split.labels.tolist()
        assert part.groups.tolist() == list(range(len(part.split.labels)))


def test_the_seed_draws_the_images_and_more_of_a_seed_are_those_and_others() -> None:
    def kept(seed: int, count: int = 4) -> set[int]:
        return {index for index in indices(make_imbalanced(processed(), {1: count}, 3, seed).kept) if index % 3 == 1}

    assert kept(0) == kept(0)
    assert len({frozenset(kept(seed)) for seed in range(5)}) == 5
    assert kept(0) < kept(0, 9)


def test_of_near_duplicates_there_is_one() -> None:
    parts = make_imbalanced(processed(near_duplicates=True), {1: 4}, 3, 0)
    found = [index % 30 for part in parts for index in indices(part)]
    assert len({*found}) == len(found)
    assert counted(parts.kept) == [7, 4, 7]


@pytest.mark.parametrize(("count", "validation_pool"), [(18, 3), (4, 20)])
def test_a_class_that_is_too_small_is_named(count: int, validation_pool: int) -> None:
    with pytest.raises(UserError, match=r"^subsets: class (apple|fig) has 20 "):
        make_imbalanced(processed(), {1: count}, validation_pool, 0)
