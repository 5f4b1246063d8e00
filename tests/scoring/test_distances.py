"""Frechet and kernel distance, and their errors, against closed forms, computed independently with numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.scoring import scores
from ddpm.scoring.scores import FrechetDistance, KernelDistances, frechet_distance, jackknife


def features(count: int, seed: int, width: int = 6) -> Tensor:
    """Correlated features of different scales, with a mean that is not zero."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, width, generator=rng) @ mixing + torch.arange(width) / 2


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


def test_kernel_distance_is_the_closed_form() -> None:
    real, samples = features(200, seed=0), 1.3 * features(200, seed=1) - 0.2
    expected = kernel_closed_form(real, samples)
    assert expected > 0.5
    assert KernelDistances(real)(samples).distance == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_other_counts_and_in_other_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    real, samples = features(53, seed=0), features(47, seed=1) + 0.5
    whole = KernelDistances(real)(samples)
    assert KernelDistances(samples)(real) == pytest.approx(whole, rel=1e-9)
    monkeypatch.setattr(scores, "CHUNK", 10)
    assert KernelDistances(real)(samples) == pytest.approx(whole, rel=1e-9)
    # Twice the same samples: the pairs of equal ones are no longer left out of the mean within the samples.
    assert KernelDistances(real)(torch.cat([samples, samples])).distance > whole.distance


def test_kernel_distance_of_equal_distributions_is_zero_but_for_chance() -> None:
    pairs = [(features(150, seed=2 * i) / 4, features(150, seed=2 * i + 1) / 4) for i in range(100)]
    distances, errors = torch.tensor([KernelDistances(pair[0])(pair[1]) for pair in pairs]).unbind(1)
    # Unbiased: some are negative, and the mean is zero within three standard errors.
    assert distances.min() < 0
    assert distances.mean().abs() < 3 * distances.std() / 10
    assert 0.9 < errors.square().mean().sqrt() / distances.std() < 1.7
    assert KernelDistances(pairs[0][0])(pairs[0][1] + 1).distance > 10 * distances.abs().max()


def test_error_of_the_kernel_distance_is_the_deviation_over_other_images() -> None:
    found = [KernelDistances(features(150, 2 * i) / 4)(features(150, 2 * i + 1) / 4 + 0.5) for i in range(200)]
    distances, errors = torch.tensor(found).unbind(1)
    assert errors.square().mean().sqrt() == pytest.approx(distances.std().item(), rel=0.15)
    assert errors.std() < errors.mean() / 2


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # In as many groups as values, it is the textbook's.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "GROUPS", 200)
        assert jackknife(lambda x: x.mean().item(), values) == pytest.approx(values.std().item() / 200**0.5)
    # In ten, it estimates that with nine degrees of freedom: exactly the deviation of ten means of twenty.
    means = values.view(10, 20).mean(1)
    assert jackknife(lambda x: x.mean().item(), values) == pytest.approx(means.std().item() / 10**0.5)


def test_jackknife_of_a_frechet_distance_is_the_deviation_over_other_images() -> None:
    distance = FrechetDistance(features(5000, seed=0))
    others = [1.2 * features(400, seed=seed) for seed in range(1, 121)]
    found = torch.tensor([(distance(each), jackknife(distance, each)) for each in others])
    assert found[:, 1].square().mean().sqrt() == pytest.approx(found[:, 0].std().item(), rel=0.2)
