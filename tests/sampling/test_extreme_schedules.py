"""Schedules at the limits of what is allowed give finite tables and samples, and what is beyond is refused by key."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.schedule import LEAST_NOISE, NoiseSchedule, ScheduleParams
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import parse
from ddpm.sampling.samplers import sample_loop
from tests.sampling.walks import sampler

SIZES: list[dict[str, Any]] = [
    {"timesteps": 1, "beta_start": LEAST_NOISE, "beta_end": LEAST_NOISE},
    {"timesteps": 2, "beta_start": LEAST_NOISE, "beta_end": 1 - 1.01e-10},
    {"timesteps": 1000, "beta_start": LEAST_NOISE, "beta_end": LEAST_NOISE},
    {"timesteps": 1000, "beta_start": LEAST_NOISE, "beta_end": 0.02},
    {"timesteps": 100_000, "beta_start": LEAST_NOISE, "beta_end": 4e-4},
]


@pytest.mark.parametrize("beta_start", [1e-17, 1e-16, 5e-324, 0.99 * LEAST_NOISE])
def test_a_first_beta_that_leaves_no_noise_is_refused_by_its_key(beta_start: float) -> None:
    with pytest.raises(UserError) as caught:
        parse(ScheduleParams, {"timesteps": 10, "beta_start": beta_start, "beta_end": 0.5}, "params.yaml", "schedule")
    assert str(caught.value) == (
        f"params.yaml: 1 invalid\n  schedule.beta_start: must be at least 1e-10; raise it, got {beta_start!r}"
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_table_is_finite_and_every_timestep_has_noise_of_its_own(size: dict[str, Any]) -> None:
    schedule = NoiseSchedule(ScheduleParams(**size))
    for name, table in vars(schedule).items():
        if isinstance(table, Tensor):
            assert table.isfinite().all(), name
    log_snr = schedule.alphas_cumprod.logit()
    assert log_snr.isfinite().all()
    assert (log_snr.diff() < 0).all()
    assert (schedule.sqrt_one_minus_alphas_cumprod.float() > 0).all()
    # By definition they are equal; six digits are left.
    assert 1 - schedule.alphas_cumprod[0].item() == pytest.approx(size["beta_start"], rel=1e-6)
    assert (schedule.posterior_variance[1:] > 0).all()
    assert (schedule.posterior_variance <= schedule.betas * (1 + 1e-6)).all()


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading", "log_snr", "power"])
@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_samplers_walk_them(size: dict[str, Any], name: str, spacing: str) -> None:
    for steps in {1, 2, 5}:
        if steps <= size["timesteps"]:
            assert walked(NoiseSchedule(ScheduleParams(**size)), name, spacing, steps).isfinite().all()


def test_a_variance_that_rounding_makes_too_large_leaves_no_negative_rest() -> None:
    """Found by a search over pairs of cumulative products: beta is 1 - abar there, as far as float64 can tell."""
    schedule = NoiseSchedule(ScheduleParams(timesteps=2, beta_start=0.1, beta_end=0.2))
    schedule.alphas_cumprod = torch.tensor([0.9999999627680012, 2.3283058972029943e-10], dtype=torch.float64)
    assert walked(schedule, "ddpm", "trailing", 2).isfinite().all()


def walked(schedule: NoiseSchedule, name: str, spacing: str, steps: int) -> Tensor:
    params = sampler(name, steps=steps, spacing=spacing, clip=True)
    source = torch.Generator().manual_seed(0)
    *_, last = sample_loop(
        lambda x_t, _: 0.9 * x_t, schedule, params, lambda: torch.randn(2, 1, 3, 3, generator=source)
    )
    return last.x_prev
