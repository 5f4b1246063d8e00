"""The timesteps of a batch: how often each is drawn."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.diffusion.timesteps import draw_timesteps, quantile_timesteps, timestep_cdf

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.01, beta_end=0.5))
REFERENCE = NoiseSchedule(ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02))


def uniform(timesteps: int) -> Tensor:
    return torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps


def test_uniform_timesteps_are_uniform() -> None:
    t = draw_timesteps(100_000, uniform(1000), "uniform", generator(0, "test"))
    assert t.dtype == torch.int64
    counts = t.bincount(minlength=1000)
    assert len(counts) == 1000
    # Each count is 100 with deviation 10, and the mean 499.5 with 0.91: five deviations.
    assert (counts - 100).abs().max() < 50
    assert t.double().mean().item() == pytest.approx(499.5, abs=4.6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 8, 100])
def test_stratified_timesteps_are_one_in_each_stratum(count: int, seed: int) -> None:
    t = draw_timesteps(count, uniform(1000), "stratified", generator(seed, "test"))
    assert (t * count // 1000).tolist() == list(range(count))


def test_stratified_timesteps_are_uniform_also_where_strata_end_between_timesteps() -> None:
    source = generator(0, "test")
    t = torch.stack([draw_timesteps(4, uniform(10), "stratified", source) for _ in range(5000)])
    # Strata of 2.5 timesteps: each may reach into the next stratum's first.
    assert [column.unique().tolist() for column in t.T] == [[0, 1, 2], [2, 3, 4], [5, 6, 7], [7, 8, 9]]
    # Of 20,000 draws 2,000 each; five deviations of a binomial, which is wider than this is.
    assert (t.flatten().bincount(minlength=10) - 2000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
def test_the_largest_draw_is_still_a_timestep(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The largest float32 below 1; with a stratum's number added, it rounds to the next whole number.
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), 1 - 2**-24))
    assert draw_timesteps(128, uniform(1000), sampling, generator(0, "test"))[-1] == 999


def test_stratified_timesteps_have_less_variance_in_their_mean() -> None:
    source = generator(0, "test")
    means = {
        sampling: torch.stack([draw_timesteps(16, uniform(1000), sampling, source).double().mean() for _ in range(500)])
        for sampling in ("uniform", "stratified")
    }
    # Theory: deviation 288.7 / 4, and a sixteenth of it.
    assert means["uniform"].std().item() == pytest.approx(72.2, rel=0.15)
    assert means["stratified"].std().item() == pytest.approx(72.2 / 16, rel=0.15)
    assert means["stratified"].mean().item() == pytest.approx(499.5, abs=1.1)


def test_uniform_density_is_an_equal_share_of_every_timestep() -> None:
    cdf = timestep_cdf(REFERENCE, None)
    assert cdf.dtype == torch.float64
    torch.testing.assert_close(cdf, uniform(1000), rtol=1e-15, atol=0)


@pytest.mark.parametrize("schedule", [SCHEDULE, REFERENCE], ids=lambda schedule: schedule.timesteps)
def test_the_density_around_0_is_uniform_in_the_angle_whose_cosine_is_the_signal(schedule: NoiseSchedule) -> None:
    params, signal, angles = schedule.params, 1.0, []
    for t in range(params.timesteps):
        slope = (params.beta_end - params.beta_start) / (params.timesteps - 1)
        signal *= 1 - (params.beta_start + t * slope)
        angles.append(math.acos(math.sqrt(signal)))
    cdf = timestep_cdf(schedule, 0.0)
    assert cdf.dtype == torch.float64
    assert cdf.tolist() == pytest.approx([angle / (math.pi / 2) for angle in angles], rel=1e-12)


@pytest.mark.parametrize("center", [-3.0, -1.0, 0.0, 2.5])
def test_the_log_snr_has_the_density_of_a_hyperbolic_secant(center: float) -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    # Simpson's rule between neighbours.
    places = torch.stack([log_snr[:-1], (log_snr[:-1] + log_snr[1:]) / 2, log_snr[1:]])
    density = 1 / (2 * math.pi * ((places - center) / 2).cosh())
    mean = (torch.tensor([1, 4, 1], dtype=torch.float64) / 6) @ density
    torch.testing.assert_close(timestep_cdf(REFERENCE, center).diff(), mean * -log_snr.diff(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("center", [-1.0, 0.0])
@pytest.mark.parametrize("sampling", ["uniform", "stratified"])
@pytest.mark.parametrize("schedule", [SCHEDULE, REFERENCE], ids=lambda schedule: schedule.timesteps)
def test_timesteps_are_as_frequent_as_the_density_says(schedule: NoiseSchedule, sampling: str, center: float) -> None:
    draws = 1_000_000
    cdf = timestep_cdf(schedule, center)
    shares = cdf.diff(prepend=torch.zeros(1, dtype=torch.float64))
    shares[-1] += 1 - cdf[-1]  # pure noise stands for what lies beyond the schedule
    counts = draw_timesteps(draws, cdf, sampling, generator(0, "test")).bincount(minlength=schedule.timesteps)
    assert len(counts) == schedule.timesteps
    deviation = (draws * shares * (1 - shares)).sqrt() if sampling == "uniform" else 0.4  # a stratum at either end
    assert ((counts - draws * shares).abs() / deviation).max() < 5


@pytest.mark.parametrize("center", [-1.0, 0.0, 1.5])
def test_the_log_snr_is_drawn_around_its_center_as_by_the_cosine_schedule(center: float) -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    cdf = timestep_cdf(REFERENCE, center)
    drawn = log_snr[draw_timesteps(100_000, cdf, "uniform", generator(0, "test"))]
    # A timestep is 0.011 there, and five standard errors of the middle one of the draws are 0.05.
    assert drawn.median().item() == pytest.approx(center, abs=0.06)
    # Of the cosine schedule, log_snr is twice the logarithm of the cotangent.
    assert drawn.quantile(0.25).item() == pytest.approx(center - 2 * math.log(1 + 2**0.5), abs=0.08)
    assert drawn.quantile(0.75).item() == pytest.approx(center + 2 * math.log(1 + 2**0.5), abs=0.08)


def test_uniform_timesteps_of_linear_betas_are_mostly_noise() -> None:
    log_snr = REFERENCE.alphas_cumprod.logit()
    t = draw_timesteps(100_000, timestep_cdf(REFERENCE, None), "uniform", generator(0, "test"))
    assert log_snr[t].median().item() == pytest.approx(log_snr[500].item(), abs=0.06)
    assert log_snr[500].item() < -2


def test_stratified_timesteps_of_any_density_are_one_in_each_stratum() -> None:
    cdf = timestep_cdf(REFERENCE, 0.0)
    t = draw_timesteps(8, cdf, "stratified", generator(0, "test"))
    below = torch.cat([torch.zeros(1, dtype=torch.float64), cdf])
    strata = torch.arange(9) / 8
    assert (below[t] < strata[1:]).all()
    assert (cdf[t][:-1] > strata[:-2]).all()
    assert t[-1] > t[-2]


@pytest.mark.parametrize("count", [1, 2, 4, 8, 64])
def test_quantiles_part_the_density_into_equal_shares_from_the_last_timestep_on(count: int) -> None:
    cdf = timestep_cdf(REFERENCE, -1.0)
    timesteps = quantile_timesteps(count, cdf)
    assert len(timesteps) == count
    assert timesteps[0] == 999
    assert list(timesteps) == sorted({*timesteps}, reverse=True)
    shares = [float(cdf[t] / cdf[-1]) for t in timesteps]
    assert shares == pytest.approx([(count - index) / count for index in range(count)], abs=0.01)


def test_quantiles_of_a_uniform_density_are_the_trailing_timesteps() -> None:
    assert quantile_timesteps(4, uniform(1000)) == (999, 749, 499, 249)


def test_more_quantiles_than_timesteps_are_refused() -> None:
    assert quantile_timesteps(20, uniform(20)) == (*range(19, -1, -1),)
    for count, timesteps in ((21, 20), (2, 1)):
        with pytest.raises(
            ValueError, match=f"{count} of {timesteps} timesteps in equal shares would not all be different"
        ):
            quantile_timesteps(count, uniform(timesteps))
