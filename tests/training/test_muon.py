"""Muon: the orthogonal update against the singular value decomposition, its first steps against their definition."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.optim import ITERATIONS, NEWTON_SCHULZ, Muon, orthogonalise
from tests.networks.random_weights import normal


def of_singular_values(values: Tensor, rows: int, columns: int) -> Tensor:
    left, _, right = torch.linalg.svd(normal(rows, columns).double(), full_matrices=False)
    return left * values @ right


def newton_schulz(matrix: Tensor) -> Tensor:
    """The quintic iteration of Jordan et al. 2024, as they write it."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


# The Gram matrix holds the squares of the singular values, and float32 a ten-millionth of the largest.
@pytest.mark.parametrize(("least", "tolerance"), [(1.0, 1e-5), (0.1, 1e-5), (1e-2, 3e-4), (1e-4, 5e-4)])
@pytest.mark.parametrize("shape", [(16, 16), (32, 288), (288, 32), (64, 576), (1, 9)])
def test_it_is_newton_schulz_on_a_smaller_matrix(shape: tuple[int, int], least: float, tolerance: float) -> None:
    spread = torch.logspace(0, math.log10(least), min(shape), dtype=torch.float64)
    matrix = of_singular_values(spread, *shape)
    expected = newton_schulz(matrix)
    torch.testing.assert_close(orthogonalise([matrix])[0], expected, rtol=0, atol=1e-10)
    single = orthogonalise([matrix.float()])[0]
    assert (single - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("shape", [(8, 8), (4, 36), (36, 4)])
def test_what_has_few_directions_gets_no_others_and_nothing_none(shape: tuple[int, int]) -> None:
    values = torch.tensor([1.0, 0.5, *[0.0] * (min(shape) - 2)], dtype=torch.float64)
    found = torch.linalg.svdvals(orthogonalise([of_singular_values(values, *shape).float()])[0])
    assert found[2:].max() < 1e-3
    assert 0.65 < found[1] <= found[0] < 1.25
    assert not orthogonalise([torch.zeros(shape)])[0].any()


def test_steps_are_nesterov_momentum_made_orthogonal() -> None:
    weight = normal(6, 4, 3, 3).requires_grad_()
    optimizer = Muon([weight], lr=0.01)
    expected, momentum = weight.detach().clone(), torch.zeros(6, 4, 3, 3)
    for step in range(3):
        gradient = normal(6, 4, 3, 3, seed=step + 2)
        weight.grad = gradient.clone()
        momentum = 0.95 * momentum + 0.05 * gradient
        nesterov = 0.05 * gradient + 0.95 * momentum
        expected = expected - 0.01 * 0.2 * 36**0.5 * orthogonalise([nesterov.flatten(1)])[0].view(6, 4, 3, 3)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)
