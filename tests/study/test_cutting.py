"""Classes are made rare: so many images are kept, by a seed, and what is left out is nowhere in what is kept."""

import pytest
import torch
from pydantic import ValidationError

from ddpm.images.splits import Processed, Split
from ddpm.pipeline.console import UserError
from ddpm.study.cutting import Cut, CutParams, cut, seed_of
from tests.small import FRUITS


def processed(count: int = 60, twins: bool = False) -> Processed:
    """Images of three classes, as many of each, whose first level is their index."""
    images = torch.zeros(count, *FRUITS.shape, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
    groups = torch.arange(count)
    if twins:
        groups[30:60] = torch.arange(30)  # each image of the second half is a twin
    return Processed(FRUITS, Split(images, torch.arange(count) % 3), groups, (5, 6, 7))


def indices(part: Processed) -> list[int]:
    return part.split.images[:, 0, 0, 0].tolist()


def counted(part: Processed) -> list[int]:
    return part.split.labels.bincount(minlength=3).tolist()


def test_so_many_are_kept_and_so_many_left_out() -> None:
    kept, left_out = cut(processed(), {1: 4}, 3, 0)
    assert counted(kept) == [17, 4, 17]
    assert counted(left_out) == [3, 3, 3]
    assert not {*indices(kept)} & {*indices(left_out)}
    for part in (kept, left_out):
        assert indices(part) == sorted(indices(part))
        assert [index % 3 for index in indices(part)] == part.split.labels.tolist()
        assert (part.card, part.test_counts) == (FRUITS, (5, 6, 7))
        assert part.groups.tolist() == list(range(len(part.split.labels)))


def test_the_seed_draws_the_images() -> None:
    def kept(seed: int) -> list[int]:
        return [index for index in indices(cut(processed(), {1: 4}, 3, seed).kept) if index % 3 == 1]

    assert kept(0) == kept(0)
    assert len({tuple(kept(seed)) for seed in range(5)}) == 5


def test_more_images_of_a_seed_are_those_and_others() -> None:
    few, more = (
        {index for index in indices(cut(processed(), {1: count}, 3, 0).kept) if index % 3 == 1} for count in (4, 9)
    )
    assert few < more


def test_of_twins_there_is_one() -> None:
    found: Cut = cut(processed(twins=True), {1: 4}, 3, 0)
    assert {index % 30 for part in found for index in indices(part)} == {
        index for part in found for index in indices(part)
    }
    assert counted(found.kept) == [7, 4, 7]


@pytest.mark.parametrize(("count", "spare"), [(18, 3), (20, 1), (4, 17), (4, 20)])
def test_a_class_that_is_too_small_is_named(count: int, spare: int) -> None:
    with pytest.raises(UserError, match=r"^cut: class (apple|fig) has 20 different images.*ask for fewer$"):
        cut(processed(), {1: count}, spare, 0)


def test_a_name_is_a_count_and_a_seed() -> None:
    params = CutParams(classes=("fig", "pear"), spare=5)
    assert (params.counts("50-3", FRUITS), seed_of("50-3")) == ({1: 50, 2: 50}, 3)
    for name in ("50", "0-1", "-1-1", "50-03", "a-b", "50-0/..", "50-0 ", "", "50-1-1"):
        with pytest.raises(UserError, match=r"^cut\.sets: .*must be a count and a seed, such as 50-0$"):
            params.counts(name, FRUITS)


def test_some_class_must_be_rare_and_known() -> None:
    with pytest.raises(ValidationError, match="must name some"):
        CutParams.model_validate({"classes": "all", "spare": 5})
    with pytest.raises(UserError, match=r"cut\.classes: no class is named kiwi"):
        CutParams(classes=("kiwi",), spare=5).counts("5-0", FRUITS)
