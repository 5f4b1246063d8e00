"""The densities of the timestep t: how often each timestep is drawn, and the timesteps that part it equally."""

import math

import pytest
import torch

from ddpm.diffusion.randomness import generator
from ddpm.diffusion.timesteps import draw_timesteps, quantile_timesteps, relative_density, timestep_cdf
from tests.reverse import REFERENCE as SCHEDULE


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_the_largest_draw_is_still_a_timestep(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The largest float32 below 1; with a stratum's number added, it rounds to the next whole number.
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), 1 - 2**-24))
    assert draw_timesteps(128, timestep_cdf(SCHEDULE, None), sampling, generator(0, "test")).max() == 999


@pytest.mark.parametrize("center", [-3.0, 0.0, 2.5])
def test_the_log_snr_has_the_density_of_a_hyperbolic_secant(center: float) -> None:
    log_snr = SCHEDULE.alphas_cumprod.logit()
    # Simpson's rule between neighbours.
    places = torch.stack([log_snr[:-1], (log_snr[:-1] + log_snr[1:]) / 2, log_snr[1:]])
    density = 1 / (2 * math.pi * ((places - center) / 2).cosh())
    mean = (torch.tensor([1, 4, 1], dtype=torch.float64) / 6) @ density
    torch.testing.assert_close(timestep_cdf(SCHEDULE, center).diff(), mean * -log_snr.diff(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("center", [None, -1.0])
@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_timesteps_are_as_frequent_as_the_density_says(sampling: str, center: float | None) -> None:
    draws = 1_000_000
    cdf = timestep_cdf(SCHEDULE, center)
    shares = relative_density(cdf) / 1000
    assert float(shares.sum()) == pytest.approx(1, rel=1e-12), "pure noise stands for what lies beyond the schedule"
    counts = draw_timesteps(draws, cdf, sampling, generator(0, "test")).bincount(minlength=1000)
    assert len(counts) == 1000
    deviation = (draws * shares * (1 - shares)).sqrt() if sampling == "uniform" else 0.4  # a stratum at either end
    assert ((counts - draws * shares).abs() / deviation).max() < 5


def test_strata_come_in_random_order_for_images_may_be_sorted() -> None:
    strata = draw_timesteps(100, timestep_cdf(SCHEDULE, None), "stratified", generator(0, "test")) // 10
    assert strata.tolist() != sorted(strata.tolist()) == [*range(100)]


@pytest.mark.parametrize("count", [1, 8, 64])
def test_quantiles_part_the_density_into_equal_shares_from_the_last_timestep_on(count: int) -> None:
    cdf = timestep_cdf(SCHEDULE, -1.0)
    timesteps = quantile_timesteps(count, cdf)
    assert timesteps[0] == 999
    assert list(timesteps) == sorted({*timesteps}, reverse=True)
    shares = [float(cdf[t] / cdf[-1]) for t in timesteps]
    assert shares == pytest.approx([(count - index) / count for index in range(count)], abs=0.01)


def test_quantiles_of_a_uniform_density_are_the_trailing_timesteps() -> None:
    assert quantile_timesteps(4, timestep_cdf(SCHEDULE, None)) == (999, 749, 499, 249)
