"""Confidence and classes against values worked by hand."""

import math

import pytest
import torch

from ddpm.scoring.scores import class_chi_square, class_imbalance, class_shares, confident_share


def test_confident_share() -> None:
    probabilities = torch.tensor([[0.95, 0.03, 0.02], [0.02, 0.08, 0.90001], [0.1, 0.89, 0.01], [0.4, 0.3, 0.3]])
    for offset in (0, 50, -50):
        assert confident_share(probabilities.log() + offset, 0.9) == 0.5
    assert confident_share(probabilities.log(), 0.85) == 0.75
    assert confident_share(probabilities.log(), 0.0) == 1
    assert confident_share(probabilities.log(), 0.96) == 0
    assert confident_share(torch.zeros(3, 2), 0.5) == 1
    assert confident_share(torch.tensor([[1e4, 0.0], [0.0, 0.0]]), 0.9) == 0.5


def test_class_shares() -> None:
    assert class_shares(torch.tensor([3, 3, 0, 9]), 10) == [0.25, 0, 0, 0.5, 0, 0, 0, 0, 0, 0.25]
    assert class_shares(torch.tensor([1, 1, 2, 1]), 3) == [0, 0.75, 0.25]


def test_class_imbalance_is_the_total_variation_distance() -> None:
    even, shifted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
    assert class_imbalance(even, even) == 0
    assert class_imbalance(even, shifted) == 0.25
    assert class_imbalance(even, torch.tensor([7, 8])) == 1


def test_chi_square_of_a_table_worked_by_hand() -> None:
    first, second = torch.tensor([3] * 10 + [5] * 20), torch.tensor([3] * 20 + [5] * 10)
    chi_square, p_value = class_chi_square(first, second)
    assert chi_square == pytest.approx(20 / 3)  # every cell is 5 off the 15 that are expected
    assert p_value == pytest.approx(math.erfc(math.sqrt(20 / 3 / 2)))  # one degree of freedom


def test_chi_square_of_one_class_says_nothing() -> None:
    assert class_chi_square(torch.tensor([7, 7, 7]), torch.tensor([7, 7])) == (0, 1)


def test_p_values_of_one_distribution_are_uniform() -> None:
    rng = torch.Generator().manual_seed(0)
    draws = [torch.randint(0, 10, (2, 2000), generator=rng) for _ in range(300)]
    p_values = torch.tensor([class_chi_square(first, second)[1] for first, second in draws])
    assert p_values.mean().item() == pytest.approx(0.5, abs=0.05)
    assert (p_values < 0.05).double().mean().item() == pytest.approx(0.05, abs=0.04)
