"""The samplers with denoisers that are exact: what comes out is known in closed form."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ddpm.sample import Denoise, SamplerParams, p_sample_loop, spaced_timesteps
from tests.sampling.reverse import REFERENCE, noise_from, normals, sampler


def gaussian_denoiser(mean: Tensor | float, deviation: float) -> Denoise:
    """The exact expected x_0 given x_t where the data is N(mean, deviation^2): for 0, a single point."""

    def denoise(x_t: Tensor, t: int) -> Tensor:
        alpha_bar = REFERENCE.alphas_cumprod[t]
        gain = alpha_bar.sqrt() * deviation**2 / (alpha_bar * deviation**2 + 1 - alpha_bar)
        return mean + gain * (x_t - alpha_bar.sqrt() * mean)

    return denoise


@pytest.mark.parametrize("steps", [None, 50, 3, 1])
@pytest.mark.parametrize(
    "params",
    [
        sampler(),
        sampler(variance="beta"),
        sampler(clip=True),
        *(sampler("ddim", eta=eta) for eta in (0.0, 0.3, 1.0)),
        *(sampler("dpmpp_2m", eta=eta) for eta in (0.0, 1.0)),
    ],
    ids=["ddpm", "ddpm-beta", "ddpm-clip", "ddim-0", "ddim-0.3", "ddim-1", "dpmpp_2m-0", "dpmpp_2m-1"],
)
def test_a_known_x_start_is_recovered(params: SamplerParams, steps: int | None) -> None:
    x_start = next(normals(seed=9)).clamp(-1, 1)
    params = params.model_copy(update={"steps": steps})
    reverse = list(p_sample_loop(gaussian_denoiser(x_start, 0), REFERENCE, params, noise_from(normals())))
    for step in reverse:
        torch.testing.assert_close(step.pred_x_start, x_start, rtol=0, atol=1e-11)
    torch.testing.assert_close(reverse[-1].x_prev, x_start, rtol=0, atol=1e-12)


def moments(mean: float, deviation: float, params: SamplerParams) -> Iterator[tuple[int, float, float]]:
    """t, mean and variance of x_prev over all noise, exactly, for a Gaussian denoiser and x_T ~ q(x_T).

    Every step is then affine in the noise, so that the response to each draw alone tells the variance: image 0 gets
    no noise, and image k a one at draw k.
    """
    draws = len(spaced_timesteps(REFERENCE, params.steps, params.spacing))
    unit = torch.eye(draws + 1, dtype=torch.float64)[1:, :, None, None, None]
    alpha_bar = REFERENCE.alphas_cumprod[-1]
    first = alpha_bar.sqrt() * mean + (alpha_bar * deviation**2 + 1 - alpha_bar).sqrt() * unit[0]
    noise = noise_from(iter([first, *unit[1:]]))
    for step in p_sample_loop(gaussian_denoiser(mean, deviation), REFERENCE, params, noise):
        base = step.x_prev[0]
        yield step.t, base.item(), (step.x_prev - base).square().sum().item()


@pytest.mark.parametrize("steps", [None, 20])
@pytest.mark.parametrize(
    "params",
    [sampler(), sampler("ddim", eta=0.0), sampler("ddim", eta=0.5), sampler("dpmpp_2m", eta=0.5, spacing="log_snr")],
    ids=["ddpm", "ddim-0", "ddim-0.5", "dpmpp_2m-0.5"],
)
def test_a_points_marginals_are_those_of_q_at_every_timestep(params: SamplerParams, steps: int | None) -> None:
    params = params.model_copy(update={"steps": steps})
    after = [*spaced_timesteps(REFERENCE, steps, params.spacing)[1:], None]
    for t_prev, (_, mean, variance) in zip(after, moments(0.6, 0, params), strict=True):
        alpha_bar = 1.0 if t_prev is None else REFERENCE.alphas_cumprod[t_prev].item()
        assert mean == pytest.approx(alpha_bar**0.5 * 0.6, abs=1e-10)
        assert variance == pytest.approx(1 - alpha_bar, abs=1e-10)


def test_standard_normal_data_stays_standard_normal_with_variance_beta() -> None:
    # Ho et al. 2020, section 3.2: beta is exactly the right variance for x_0 ~ N(0, I).
    *before, (_, last_mean, last_variance) = moments(0, 1, sampler(variance="beta"))
    assert [variance for _, _, variance in before] == pytest.approx([1] * 999, rel=1e-9)
    assert last_mean == 0
    # The last step adds no noise: it gives E[x_0 | x_1], whose variance is alphas_cumprod[0].
    assert last_variance == pytest.approx(1 - 1e-4, rel=1e-9)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_gaussian_data_is_sampled_with_its_mean_and_variance(variance: str) -> None:
    *_, (t, last_mean, last_variance) = moments(0.3, 0.5, sampler(variance=variance))
    assert t == 0
    assert last_mean == pytest.approx(0.3, abs=1e-9)
    # The article's form of the mean says the same of the variance alone: the exact noise in x_t is
    # sqrt(1 - abar) (x_t - its mean) / its variance, which is `marginal`.
    marginals = (REFERENCE.alphas_cumprod * 0.25 + 1 - REFERENCE.alphas_cumprod).tolist()
    expected = marginals[-1]
    for t in reversed(range(1000)):
        beta = REFERENCE.betas[t].item()
        added = REFERENCE.posterior_variance[t].item() if variance == "posterior" or t == 0 else beta
        expected = (1 - beta / marginals[t]) ** 2 / (1 - beta) * expected + added
    assert last_variance == pytest.approx(expected, rel=1e-9)
    # The true reverse variance lies between the two choices (Ho et al. 2020, section 3.2); T = 1000 is near the limit.
    low, high = (0.98, 1) if variance == "posterior" else (1, 1.02)
    assert low < last_variance / 0.25 < high


def errors_half_way(name: str, steps: int) -> float:
    """How far x_t is from the exact solution of the probability-flow equation at t = 499, for Gaussian data."""
    mean, deviation = 0.3, 0.5
    denoise, params = gaussian_denoiser(mean, deviation), sampler(name, steps=steps, eta=0.0)
    reverse = list(p_sample_loop(denoise, REFERENCE, params, noise_from(normals())))
    assert reverse[steps // 2].t == 499
    x_t = next(normals())

    def standardised(x: Tensor, t: int) -> Tensor:
        alpha_bar = REFERENCE.alphas_cumprod[t]
        return (x - alpha_bar.sqrt() * mean) / (alpha_bar * deviation**2 + 1 - alpha_bar).sqrt()

    # The equation moves every quantile to the same quantile.
    return (standardised(reverse[steps // 2 - 1].x_prev, 499) - standardised(x_t, 999)).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    coarse, fine, finer = (errors_half_way(name, steps) for steps in (50, 100, 200))
    assert coarse / fine == pytest.approx(2**order, rel=0.2)
    assert fine / finer == pytest.approx(2**order, rel=0.1)


def test_the_second_order_samples_gaussian_data_more_truly() -> None:
    for eta in (0.0, 1.0):
        variances = []
        for name in ("ddim", "dpmpp_2m"):
            *_, (_, mean, variance) = moments(0.3, 0.5, sampler(name, steps=20, eta=eta, spacing="log_snr"))
            assert mean == pytest.approx(0.3, abs=0.01)
            variances.append(abs(variance - 0.25))
        assert variances[1] < variances[0] / 3
