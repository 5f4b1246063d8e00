"""Muon: the orthogonal update against the singular value decomposition, its first steps against their definition."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.training.muon import ITERATIONS, NEWTON_SCHULZ, Muon, orthogonalise


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8), (1, 9)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonal_factor_keeps_the_directions_and_evens_out_the_lengths(shape: tuple[int, int], scale: float) -> None:
    # Singular values between 0.1 and 1 of the largest: what lies below a hundredth takes more iterations.
    left, _, right = torch.linalg.svd(normal(*shape).double(), full_matrices=False)
    values = torch.linspace(1, 0.1, min(shape), dtype=torch.float64)
    factor = orthogonalise([scale * left * values @ right])[0]
    inner = left.T @ factor @ right.T
    assert (inner - inner.diag().diag()).abs().max() < 1e-8
    assert inner.diag().min() > 0.65
    assert inner.diag().max() < 1.25


def newton_schulz(matrix: Tensor) -> Tensor:
    """The quintic iteration of Jordan et al. 2024, as they write it."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def of_singular_values(values: Tensor, rows: int, columns: int) -> Tensor:
    left, _, right = torch.linalg.svd(normal(rows, columns).double(), full_matrices=False)
    return left * values @ right


# The Gram matrix holds the squares of the singular values, and float32 a ten-millionth of the largest.
@pytest.mark.parametrize(("least", "tolerance"), [(1.0, 1e-5), (0.1, 1e-5), (1e-2, 3e-4), (1e-4, 5e-4)])
@pytest.mark.parametrize("shape", [(16, 16), (32, 288), (288, 32), (64, 576), (1, 9)])
def test_it_is_newton_schulz_on_a_smaller_matrix(shape: tuple[int, int], least: float, tolerance: float) -> None:
    spread = torch.logspace(0, math.log10(least), min(shape), dtype=torch.float64)
    matrix = of_singular_values(spread, *shape)
    expected = newton_schulz(matrix)
    torch.testing.assert_close(orthogonalise([matrix])[0], expected, rtol=0, atol=1e-10)
    single = orthogonalise([matrix.float()])[0]
    assert single.dtype == torch.float32
    assert (single - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_what_has_few_directions_gets_no_others(shape: tuple[int, int], rank: int, scale: float) -> None:
    values = torch.zeros(min(shape), dtype=torch.float64)
    values[:rank] = torch.linspace(1, 0.5, rank)
    matrix = of_singular_values(values, *shape)
    factor = orthogonalise([(scale * matrix).float()])[0]
    assert factor.isfinite().all()
    found = torch.linalg.svdvals(factor)
    assert found[rank:].max() < 1e-3
    if scale >= 1:
        assert found[:rank].min() > 0.65
        assert found[:rank].max() < 1.25


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (4, 4)])
def test_nothing_gives_nothing(shape: tuple[int, int]) -> None:
    assert torch.equal(orthogonalise([torch.zeros(shape)])[0], torch.zeros(shape))


def test_steps_are_nesterov_momentum_made_orthogonal() -> None:
    weight = normal(6, 4, 3, 3).requires_grad_()
    optimizer = Muon([weight], lr=torch.tensor(0.01))
    expected, momentum = weight.detach().clone(), torch.zeros(6, 4, 3, 3)
    for step in range(3):
        gradient = normal(6, 4, 3, 3, seed=step + 1)
        weight.grad = gradient.clone()
        momentum = 0.95 * momentum + 0.05 * gradient
        nesterov = 0.05 * gradient + 0.95 * momentum
        expected = expected - 0.01 * 0.2 * 36**0.5 * orthogonalise([nesterov.flatten(1)])[0].view(6, 4, 3, 3)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(weight.grad, gradient)


def test_an_update_has_the_size_of_one_of_adams() -> None:
    weight = normal(64, 32, 3, 3).requires_grad_()
    before = weight.detach().clone()
    weight.grad = normal(64, 32, 3, 3, seed=1)
    Muon([weight], lr=torch.tensor(0.01)).step()
    size = (weight.detach() - before).square().mean().sqrt().item()
    assert size == pytest.approx(0.2 * 0.01, rel=0.2)


def test_memory_format_does_not_matter() -> None:
    weights = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        weight = normal(8, 4, 3, 3).contiguous(memory_format=memory_format).requires_grad_()
        weight.grad = normal(8, 4, 3, 3, seed=1).contiguous(memory_format=memory_format)
        Muon([weight], lr=torch.tensor(0.01)).step()
        weights.append(weight)
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)


def test_matrices_of_equal_side_are_iterated_together_and_come_out_as_alone() -> None:
    source = torch.Generator().manual_seed(0)
    shapes = [(4, 36), (36, 4), (4, 4), (8, 72), (4, 9), (8, 8)]
    matrices = [torch.randn(shape, generator=source) for shape in shapes]
    matrices.append(torch.zeros(4, 36))
    for found, matrix in zip(orthogonalise(matrices), matrices, strict=True):
        assert found.shape == matrix.shape
        assert torch.equal(found, orthogonalise([matrix])[0])
    assert orthogonalise([]) == []


def test_the_iteration_is_called_once_for_each_side() -> None:
    """A GPU is launch-bound here: operations must not grow with the number of weights."""
    source = torch.Generator().manual_seed(0)

    def iterations(count: int) -> int:
        matrices = [torch.randn(4, 36, generator=source) for _ in range(count)]
        with torch.profiler.profile() as profile:
            orthogonalise(matrices)
        return sum(event.count for event in profile.key_averages() if event.key == "aten::baddbmm")

    assert iterations(1) == iterations(10) == ITERATIONS
