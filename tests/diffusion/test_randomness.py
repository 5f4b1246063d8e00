"""The randomness that needs no state: a generator for each name, and noise for each image."""

import pytest
import torch

from ddpm.diffusion.batches import distinct
from ddpm.diffusion.randomness import generator


def draw(*name: object) -> list[float]:
    return torch.rand(4, generator=generator(*name)).tolist()  # type: ignore[arg-type]


def test_a_generator_is_that_of_its_three_names() -> None:
    names = [(0, "train", 5), (1, "train", 5), (0, "image", 5), (0, "train", 6), (0, "train"), (5, "train", 0)]
    first = [draw(*name) for name in names]
    assert [draw(*name) for name in names] == first
    assert len({tuple(values) for values in first}) == 6


def test_generators_are_pinned() -> None:
    # A change here changes every result of the project.
    assert generator(0, "train", 0).initial_seed() == 3168021335108090602
    assert draw(0, "train", 0) == pytest.approx([0.2869742, 0.6810609, 0.7739152, 0.394296], abs=1e-6)


@pytest.mark.parametrize(("count", "end"), [(5, 5), (9, 5), (0, 5), (2048, 10**7)])
def test_distinct_numbers_are_distinct_and_those_of_their_names(count: int, end: int) -> None:
    first, second, again = (distinct(count, end, 0, "test", index).tolist() for index in (0, 1, 0))
    assert first == again
    assert first != second or not count
    for numbers in (first, second):
        assert len(numbers) == len({*numbers}) == min(count, end)
        assert all(0 <= number < end for number in numbers)
