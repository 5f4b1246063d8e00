"""The scores against closed forms, computed independently with numpy."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.scoring import scores
from ddpm.scoring.scores import (
    class_chi_square,
    class_imbalance,
    class_shares,
    confident_share,
    copying,
    frechet_distance,
    kernel_distance,
    nearest_neighbours,
)


def features(count: int, seed: int, width: int = 6) -> Tensor:
    """Correlated features of different scales, with a mean that is not zero."""
    source = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, width, generator=source) @ mixing + torch.arange(width) / 2


def frechet_closed_form(real: Tensor, samples: Tensor) -> float:
    """Heusel et al. 2017, eq. 6, by symmetric square roots, where every eigenvalue is real."""
    left, right = real.double().numpy(), samples.double().numpy()
    cov_left, cov_right = np.cov(left, rowvar=False), np.cov(right, rowvar=False)
    values, vectors = np.linalg.eigh(cov_left)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_right @ root).clip(0)).sum()
    shift = left.mean(0) - right.mean(0)
    return float(shift @ shift + np.trace(cov_left) + np.trace(cov_right) - 2 * cross)


def kernel_closed_form(real: Tensor, samples: Tensor) -> float:
    """Binkowski et al. 2018: the unbiased squared MMD (eq. 4) with the kernel (x.y / D + 1)^3."""
    left, right = real.double().numpy(), samples.double().numpy()
    count, width = left.shape

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / width + 1) ** 3

    off_diagonal = ~np.eye(count, dtype=bool)
    within = kernel(left, left)[off_diagonal].mean() + kernel(right, right)[off_diagonal].mean()
    return float(within - 2 * kernel(left, right).mean())


def test_frechet_distance_is_the_closed_form() -> None:
    real, samples = features(400, seed=0), 1.3 * features(300, seed=1) - 0.2
    expected = frechet_closed_form(real, samples)
    assert expected > 0.5
    # The result is rounded to float32.
    assert frechet_distance(real, samples) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(samples, real) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_keeps_its_digits_far_from_zero() -> None:
    # In float32, the sums of squares of these features would have no digits left for their covariance.
    real, samples = features(2000, seed=0) + 1000, 1.01 * features(2000, seed=1) + 1000
    expected = frechet_closed_form(real, samples)
    assert frechet_distance(real, samples) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_equal_sets_is_zero() -> None:
    real = features(400, seed=0)
    assert frechet_distance(real, real.clone()) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_a_shift_is_its_square() -> None:
    real = features(400, seed=0)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 3.0])
    assert frechet_distance(real, real + shift) == pytest.approx(14.25, rel=1e-6)


def test_frechet_distance_of_a_scale_is_the_trace() -> None:
    real = features(400, seed=0)
    centred = real - real.mean(0)
    # S + 4 S - 2 (S 4 S)^(1/2) = S.
    trace = centred.double().square().sum().item() / 399
    assert frechet_distance(centred, 2 * centred) == pytest.approx(trace, rel=1e-6)


def test_frechet_distance_of_many_draws_nears_the_distributions() -> None:
    source = torch.Generator().manual_seed(0)
    real = torch.randn(50_000, 3, generator=source)
    samples = torch.randn(50_000, 3, generator=source) * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([0.0, 1.0, 0.0])
    # Means differ by 1, deviations by 0, 1 and a half; three percent are three standard errors of these draws.
    assert frechet_distance(real, samples) == pytest.approx(1 + 1 + 0.25, rel=0.03)


def test_frechet_distance_with_fewer_images_than_features() -> None:
    # The covariance is then singular, and its roots lose half of the digits.
    real, samples = features(20, seed=0, width=32), features(20, seed=1, width=32)
    assert frechet_distance(real, samples) == pytest.approx(frechet_closed_form(real, samples), rel=1e-5)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-4)


def test_kernel_distance_over_whole_sets_is_the_closed_form() -> None:
    # Every subset is then the whole set.
    real, samples = features(200, seed=0), 1.3 * features(200, seed=1) - 0.2
    expected = kernel_closed_form(real, samples)
    assert expected > 0.5
    mean, deviation = kernel_distance(real, samples, seed=0)
    assert mean == pytest.approx(expected, rel=1e-4)
    assert deviation == pytest.approx(0, abs=1e-4 * expected)


def test_kernel_distance_of_equal_distributions_is_zero_but_for_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "KID_SUBSETS", 1)  # the subset is the whole set: more of them are all the same
    pairs = [(features(150, seed=2 * i) / 4, features(150, seed=2 * i + 1) / 4) for i in range(40)]
    distances = torch.tensor([kernel_distance(*pair, seed=0)[0] for pair in pairs])
    # Unbiased: some are negative, and the mean is zero within three standard errors.
    assert distances.min() < 0
    assert distances.mean().abs() < 3 * distances.std() / 40**0.5
    assert kernel_distance(pairs[0][0], pairs[0][1] + 1, seed=0)[0] > 10 * distances.abs().max()


def test_kernel_distance_is_seeded() -> None:
    real, samples = features(1200, seed=0), features(300, seed=1)
    first = kernel_distance(real, samples, seed=3)
    assert kernel_distance(real, samples, seed=3) == first
    assert kernel_distance(real, samples, seed=4) != first
    assert first[1] > 0


def test_kernel_distance_neither_uses_nor_moves_the_global_generator() -> None:
    real, samples = features(300, seed=0), features(200, seed=1)
    before = torch.get_rng_state()
    first = kernel_distance(real, samples, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert kernel_distance(real, samples, seed=3) == first


def test_distances_warn_of_nothing() -> None:
    real, samples = features(50, seed=0), features(50, seed=1)
    frechet_distance(real, samples)  # the import itself may warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(real, samples)
        kernel_distance(real, samples, seed=0)


def test_confident_share() -> None:
    probabilities = torch.tensor([[0.95, 0.03, 0.02], [0.02, 0.08, 0.90001], [0.1, 0.89, 0.01], [0.4, 0.3, 0.3]])
    for offset in (0, 50, -50):
        assert confident_share(probabilities.log() + offset, 0.9) == 0.5
    assert confident_share(probabilities.log(), 0.85) == 0.75
    assert confident_share(probabilities.log(), 0.0) == 1
    assert confident_share(probabilities.log(), 0.96) == 0


def test_confident_share_counts_the_threshold_itself() -> None:
    assert confident_share(torch.zeros(3, 2), 0.5) == 1
    assert confident_share(torch.zeros(3, 2), 0.5000001) == 0


def test_confident_share_of_huge_logits_does_not_overflow() -> None:
    assert confident_share(torch.tensor([[1e4, 0.0], [0.0, 0.0]]), 0.9) == 0.5


def test_class_shares() -> None:
    assert class_shares(torch.tensor([3, 3, 0, 9])) == [0.25, 0, 0, 0.5, 0, 0, 0, 0, 0, 0.25]
    assert class_shares(torch.tensor([1, 1, 2, 1]), classes=3) == [0, 0.75, 0.25]


def test_copies_are_their_own_nearest_neighbours() -> None:
    references = 2 * torch.rand(700, 1, 28, 28, generator=torch.Generator().manual_seed(0)) - 1
    order = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    found = nearest_neighbours(references[order], references)
    assert torch.equal(found.nearest, order)
    assert torch.equal(found.distance, torch.zeros(700))


def test_distance_of_neighbours_is_the_root_mean_square_of_pixels() -> None:
    references = torch.stack([torch.full((1, 28, 28), value) for value in (-1.0, 0.0, 1.0)])
    queries = torch.stack([torch.full((1, 28, 28), value) for value in (0.75, -0.625, 0.125)])
    queries[2, 0, :14] = -0.125
    found = nearest_neighbours(queries, references)
    assert found.nearest.tolist() == [2, 0, 1]
    assert found.distance.tolist() == [0.25, 0.375, 0.125]


def test_neighbours_are_those_of_a_plain_search() -> None:
    queries = torch.randn(9, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    references = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    distances = (queries[:, None] - references).double().square().mean(dim=(2, 3, 4)).sqrt()
    found = nearest_neighbours(queries, references)
    assert torch.equal(found.nearest, distances.argmin(1))
    torch.testing.assert_close(found.distance.double(), distances.amin(1), rtol=1e-6, atol=0)


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


def test_chi_square_with_more_degrees_of_freedom() -> None:
    first, second = torch.tensor([0] * 10 + [1] * 20 + [2] * 30), torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
    chi_square, p_value = class_chi_square(first, second)
    assert chi_square == pytest.approx(20)
    assert p_value == pytest.approx(math.exp(-10))  # two degrees of freedom


def test_chi_square_of_one_class_says_nothing() -> None:
    assert class_chi_square(torch.tensor([7, 7, 7]), torch.tensor([7, 7])) == (0, 1)


def test_p_values_of_one_distribution_are_uniform() -> None:
    source = torch.Generator().manual_seed(0)
    draws = [torch.randint(0, 10, (2, 2000), generator=source) for _ in range(300)]
    p_values = torch.tensor([class_chi_square(first, second)[1] for first, second in draws])
    assert p_values.mean().item() == pytest.approx(0.5, abs=0.05)
    assert (p_values < 0.05).double().mean().item() == pytest.approx(0.05, abs=0.04)


def test_equal_distances_are_no_copying() -> None:
    distances = torch.rand(500, generator=torch.Generator().manual_seed(0))
    assert copying(distances, distances.flip(0)) == (0, pytest.approx(0.01))


def test_copying_statistic_worked_by_hand() -> None:
    # Of the six pairs, the sample is farther in one and ties in one: U = 1.5, expected 3, deviation sqrt(6 * 6 / 12).
    found = copying(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0, 4.0]))
    assert found.z == pytest.approx((1.5 - 3) / 3**0.5)
    assert found.near_copies == 0.5


def test_copying_statistic_is_standard_normal_of_equal_distributions() -> None:
    source = torch.Generator().manual_seed(0)
    found = torch.tensor([copying(*torch.rand(2, 300, generator=source))[0] for _ in range(400)])
    assert found.mean().item() == pytest.approx(0, abs=0.15)
    assert found.std().item() == pytest.approx(1, abs=0.12)


def test_copies_are_found() -> None:
    source = torch.Generator().manual_seed(0)
    fresh, own = torch.rand(1000, generator=source) + 1, torch.rand(1000, generator=source) + 1
    own[:100] = 0.001
    found = copying(own, fresh)
    assert found.z < -3
    assert found.near_copies == pytest.approx(0.11, abs=0.01)


def test_neighbours_of_features() -> None:
    found = nearest_neighbours(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 3.0]]))
    assert found.nearest.tolist() == [1]
    assert found.distance.item() == pytest.approx(0.5**0.5)
