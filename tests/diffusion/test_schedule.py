"""The noise schedule against theory worked out independently."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule, linear_betas, posterior
from ddpm.params.schedule import LEAST_NOISE, ScheduleParams
from tests.small import normal

REFERENCE = ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02)
SCHEDULE = NoiseSchedule(linear_betas(**dict(REFERENCE)))
TIMESTEPS = [0, 1, 2, 10, 250, 500, 998, 999]


def alpha_bar(t: int) -> float:
    """The definition, without the library: the product of 1 - beta up to and including t; 1 before the first."""
    return float(np.prod([1 - (1e-4 + (0.02 - 1e-4) * s / 999) for s in range(t + 1)]))


def test_one_step_of_noise_after_another_is_the_closed_form() -> None:
    # Mean and variance of x_t from x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) eps alone (eq. 2).
    mean, variance = 1.0, 0.0
    one, nothing = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for t, beta in enumerate(np.linspace(1e-4, 0.02, 1000)):
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        if t in TIMESTEPS:
            index = torch.tensor([t])
            assert SCHEDULE.q_sample(one, index, nothing).item() == pytest.approx(mean, rel=1e-11)
            assert SCHEDULE.q_sample(nothing, index, one).item() ** 2 == pytest.approx(variance, rel=1e-11)


@pytest.mark.parametrize(("s", "t"), [(0, 1), (499, 500), (998, 999), (100, 700), (0, 999)])
def test_the_posterior_is_bayes_rule(s: int, t: int) -> None:
    x_start, x_t = normal(1, 1, 2, 2, seed=3).double(), normal(1, 1, 2, 2, seed=4).double()
    # q(x_s | x_t, x_0) ~ q(x_t | x_s) q(x_s | x_0). As functions of x_s these are Gaussians: precisions add, and the
    # mean is the average weighted by them.
    kept = alpha_bar(t) / alpha_bar(s)
    step_precision, step_mean = kept / (1 - kept), x_t / kept**0.5
    prior_precision, prior_mean = 1 / (1 - alpha_bar(s)), alpha_bar(s) ** 0.5 * x_start
    expected_variance = 1 / (step_precision + prior_precision)
    expected_mean = expected_variance * (step_precision * step_mean + prior_precision * prior_mean)

    coef1, coef2, variance = posterior(alpha_bar(t), alpha_bar(s))
    assert variance == pytest.approx(expected_variance, rel=1e-10)
    torch.testing.assert_close(coef1 * x_start + coef2 * x_t, expected_mean, rtol=1e-10, atol=1e-11)
    if s == t - 1:
        tables = SCHEDULE.posterior_mean_coef1, SCHEDULE.posterior_mean_coef2, SCHEDULE.posterior_variance
        assert [table[t].item() for table in tables] == pytest.approx([coef1, coef2, variance], rel=1e-9)


def test_the_ends_of_the_posterior_are_certain() -> None:
    assert posterior(0.5, 1.0) == (1, 0, 0)
    assert posterior(0.5, 0.5) == (0, 1, 0)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"beta_end": 5e-5}, "beta_end must be at least beta_start"),
        ({"timesteps": 10_000}, "timesteps and beta_end"),
        ({"beta_start": 0.99 * LEAST_NOISE}, "beta_start"),
    ],
)
def test_what_is_no_schedule_is_refused_by_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        ScheduleParams.model_validate({**REFERENCE.model_dump(), **change})


@pytest.mark.parametrize(("timesteps", "beta_end"), [(1, LEAST_NOISE), (2, 1 - 1.01e-10), (100_000, 4e-4)])
def test_schedules_at_the_limits_are_finite_and_every_timestep_has_noise_of_its_own(
    timesteps: int, beta_end: float
) -> None:
    schedule = NoiseSchedule(linear_betas(timesteps, LEAST_NOISE, beta_end))
    assert all(table.isfinite().all() for table in vars(schedule).values() if isinstance(table, Tensor))
    assert (schedule.alphas_cumprod.logit().diff() < 0).all()
    assert (schedule.sqrt_one_minus_alphas_cumprod.float() > 0).all()
    assert (schedule.posterior_variance[1:] > 0).all()
    assert (schedule.posterior_variance <= schedule.betas * (1 + 1e-6)).all()
