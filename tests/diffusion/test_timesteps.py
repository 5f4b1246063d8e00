"""The timesteps of a batch: how often each is drawn."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.schedule import (
    NoiseSchedule,
    ScheduleParams,
    draw_timesteps,
    quantile_timesteps,
    relative_density,
    timestep_cdf,
)

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.01, beta_end=0.5))
REFERENCE = NoiseSchedule(ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02))
SCHEDULES = pytest.mark.parametrize("schedule", [SCHEDULE, REFERENCE], ids=lambda schedule: schedule.timesteps)


def uniform(timesteps: int) -> Tensor:
    return torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps


@pytest.mark.parametrize("center", [None, -1.0, 0.0])
@pytest.mark.parametrize("count", [1, 8, 100])
def test_stratified_timesteps_are_one_in_each_stratum(count: int, center: float | None) -> None:
    cdf = timestep_cdf(REFERENCE, center)
    below = torch.cat([torch.zeros(1, dtype=torch.float64), cdf])
    strata = torch.arange(count + 1) / count
    for seed in range(5):
        t = draw_timesteps(count, cdf, "stratified", generator(seed, "test"))
        assert (below[t] < strata[1:]).all()
        assert ((cdf[t] > strata[:-1]) | (t == 999)).all()  # pure noise stands for what lies beyond the schedule


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_the_largest_draw_is_still_a_timestep(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The largest float32 below 1; with a stratum's number added, it rounds to the next whole number.
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), 1 - 2**-24))
    assert draw_timesteps(128, uniform(1000), sampling, generator(0, "test"))[-1] == 999


@SCHEDULES
def test_the_density_around_0_is_uniform_in_the_angle_whose_cosine_is_the_signal(schedule: NoiseSchedule) -> None:
    params, signal, angles = schedule.params, 1.0, []
    for t in range(params.timesteps):
        slope = (params.beta_end - params.beta_start) / (params.timesteps - 1)
        signal *= 1 - (params.beta_start + t * slope)
        angles.append(math.acos(math.sqrt(signal)))
    assert timestep_cdf(schedule, 0.0).tolist() == pytest.approx([each / (math.pi / 2) for each in angles], rel=1e-12)


@pytest.mark.parametrize("center", [-3.0, -1.0, 0.0, 2.5])
def test_the_log_snr_has_the_density_of_a_hyperbolic_secant(center: float) -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    # Simpson's rule between neighbours.
    places = torch.stack([log_snr[:-1], (log_snr[:-1] + log_snr[1:]) / 2, log_snr[1:]])
    density = 1 / (2 * math.pi * ((places - center) / 2).cosh())
    mean = (torch.tensor([1, 4, 1], dtype=torch.float64) / 6) @ density
    torch.testing.assert_close(timestep_cdf(REFERENCE, center).diff(), mean * -log_snr.diff(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("center", [None, -1.0, 0.0])
@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
@SCHEDULES
def test_timesteps_are_as_frequent_as_the_density_says(
    schedule: NoiseSchedule, sampling: str, center: float | None
) -> None:
    draws = 1_000_000
    cdf = timestep_cdf(schedule, center)
    shares = relative_density(cdf) / schedule.timesteps
    assert float(shares.sum()) == pytest.approx(1, rel=1e-12), "pure noise stands for what lies beyond the schedule"
    counts = draw_timesteps(draws, cdf, sampling, generator(0, "test")).bincount(minlength=schedule.timesteps)
    assert len(counts) == schedule.timesteps
    deviation = (draws * shares * (1 - shares)).sqrt() if sampling == "uniform" else 0.4  # a stratum at either end
    assert ((counts - draws * shares).abs() / deviation).max() < 5


@pytest.mark.parametrize("count", [1, 2, 4, 8, 64])
def test_quantiles_part_the_density_into_equal_shares_from_the_last_timestep_on(count: int) -> None:
    cdf = timestep_cdf(REFERENCE, -1.0)
    timesteps = quantile_timesteps(count, cdf)
    assert timesteps[0] == 999
    assert list(timesteps) == sorted({*timesteps}, reverse=True)
    shares = [float(cdf[t] / cdf[-1]) for t in timesteps]
    assert shares == pytest.approx([(count - index) / count for index in range(count)], abs=0.01)


def test_quantiles_of_a_uniform_density_are_the_trailing_timesteps() -> None:
    assert quantile_timesteps(4, uniform(1000)) == (999, 749, 499, 249)
    assert quantile_timesteps(20, uniform(20)) == (*range(19, -1, -1),)
    for count, timesteps in ((21, 20), (2, 1)):
        with pytest.raises(ValueError, match=f"{count} of {timesteps} timesteps"):
            quantile_timesteps(count, uniform(timesteps))


def test_a_share_is_uniform_in_the_log_snr_above_the_center() -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    share, top = timestep_cdf(REFERENCE, -1.0, 0.25) - 0.75 * timestep_cdf(REFERENCE, -1.0), log_snr[0] + 1
    expected = 0.25 * ((top - log_snr) / (top + 1)).clamp(max=1)  # nothing lies above the top, all above the center
    torch.testing.assert_close(share, expected)
    assert torch.equal(timestep_cdf(REFERENCE, -1.0, 0.0), timestep_cdf(REFERENCE, -1.0))
