"""The Frechet distance, its error and shares against closed forms; principal components that are known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.scores.components import principal_components
from ddpm.scores.distances import FrechetDistance, frechet_distance, jackknife, moments, share_of


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


# Far from zero, sums of squares in float32 would have no digits left for the covariance.
@pytest.mark.parametrize("mean", [0, 1000])
def test_frechet_distance_is_the_closed_form(mean: float) -> None:
    real, samples = features(400, seed=0) + mean, 1.3 * features(300, seed=1) - 0.2 + mean
    expected = frechet_closed_form(real, samples)
    assert expected > 0.5
    assert frechet_distance(real, samples) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(samples, real) == pytest.approx(expected, rel=1e-6)
    rest = moments(real).without(moments(real[:100]))
    assert FrechetDistance(rest)(moments(samples)) == pytest.approx(frechet_closed_form(real[100:], samples), rel=1e-6)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means = values.view(10, 4).mean(1)  # of its ten groups
    assert jackknife(lambda x: x.total.item() / x.size, values) == pytest.approx(means.std().item() / 10**0.5)


def test_errors_of_distances_of_similar_sets_are_right() -> None:
    """Where many references and few images leave hardly a slope, the jackknife alone is too large by the root of 2."""
    real, drawn = features(3000, seed=0, width=16), [features(300, seed, width=16) for seed in range(1, 41)]
    distance = FrechetDistance(moments(real))
    z = [
        (distance(moments(one)) - distance(moments(other)))
        / (jackknife(distance, one) ** 2 + jackknife(distance, other) ** 2) ** 0.5
        for one, other in zip(drawn[::2], drawn[1::2], strict=True)
    ]
    assert 0.8 < float(np.square(z).mean()) ** 0.5 < 1.25


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize(("size", "other"), [(100, 100), (600, 300)])
def test_shares_that_do_not_differ_lie_within_two_errors(share: float, size: int, other: int) -> None:
    ours, theirs = (np.random.default_rng(seed).binomial(n, share, 4000) for seed, n in ((0, size), (1, other)))
    one, two = (
        {x: share_of(torch.arange(n) < x) for x in set(drawn.tolist())} for drawn, n in ((ours, size), (theirs, other))
    )
    pairs = [(one[x], two[y]) for x, y in zip(ours.tolist(), theirs.tolist(), strict=True)]
    within = [abs(a.value - b.value) <= 2 * (a.error**2 + b.error**2) ** 0.5 for a, b in pairs]
    assert np.mean(within) > 0.94


def patterns(count: int, seed: int = 0) -> Tensor:
    """Grey images that vary in two patterns: much in the upper half, less in the lower right quarter."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.full((count, 1, 8, 8), 128.0)
    images[:, :, :4] += 30 * torch.randn(count, 1, 1, 1, generator=rng)
    images[:, :, 4:, 4:] += 10 * torch.randn(count, 1, 1, 1, generator=rng)
    return images.clamp(0, 255).round().to(torch.uint8)


def test_the_directions_are_those_in_which_images_vary_most() -> None:
    found = principal_components(patterns(2000), 2)
    assert found.directions.shape == (64, 2)
    upper, corner = torch.zeros(2, 8, 8)
    upper[:4], corner[4:, 4:] = 32**-0.5, 0.25
    expected = torch.stack([upper.flatten(), corner.flatten()], dim=1)
    assert (found.directions.T @ expected).abs().diagonal().min() > 0.999
    torch.testing.assert_close(found.directions.T @ found.directions, torch.eye(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("count", "expected"), [(3, 3), (30, 30), (300, 40)])
def test_of_few_images_there_are_fewer(count: int, expected: int) -> None:
    images = torch.randint(256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen = principal_components(images)(images)
    assert seen.shape == (count, expected)
    assert seen.mean(0).abs().max() < 1e-4
