"""The noise schedule: the article's values, and the closed forms against theory worked out independently."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams

REFERENCE = ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02)
TIMESTEPS = [0, 1, 2, 10, 250, 500, 998, 999]
TABLES = [
    "betas",
    "alphas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "posterior_variance",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
]


@pytest.fixture(scope="module")
def schedule() -> NoiseSchedule:
    return NoiseSchedule(REFERENCE)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def alpha_bar(t: int) -> float:
    """The definition, without the library: the product of 1 - beta up to and including t; 1 before the first."""
    return float(np.prod([1 - (1e-4 + (0.02 - 1e-4) * s / 999) for s in range(t + 1)]))


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("betas", ["1.0000e-04", "1.1992e-04", "1.3984e-04", "1.5976e-04", "1.7968e-04", "1.9960e-04"]),
        ("alphas_cumprod", ["0.9999", "0.9998", "0.9996", "0.9995", "0.9993", "0.9991"]),
        ("sqrt_one_minus_alphas_cumprod", ["0.0100", "0.0148", "0.0190", "0.0228", "0.0264", "0.0300"]),
    ],
)
def test_first_six_values_are_the_articles(schedule: NoiseSchedule, table: str, values: list[str]) -> None:
    style = ".4e" if table == "betas" else ".4f"
    assert [format(value, style) for value in getattr(schedule, table)[:6].tolist()] == values


def test_ends_of_the_reference_schedule(schedule: NoiseSchedule) -> None:
    assert schedule.timesteps == 1000
    assert schedule.betas[0].item() == 1e-4
    assert schedule.betas[-1].item() == 0.02
    assert schedule.alphas_cumprod_prev[0].item() == 1
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)


def test_cumulative_product_against_its_definition(schedule: NoiseSchedule) -> None:
    for t in TIMESTEPS:
        assert schedule.alphas_cumprod[t].item() == pytest.approx(alpha_bar(t), rel=1e-12)
        assert schedule.alphas_cumprod_prev[t].item() == pytest.approx(alpha_bar(t - 1), rel=1e-12)
        assert schedule.sqrt_alphas_cumprod[t].item() == pytest.approx(alpha_bar(t) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_float64_of_length_timesteps(schedule: NoiseSchedule, table: str) -> None:
    values = getattr(schedule, table)
    assert values.dtype == torch.float64
    assert values.shape == (1000,)
    assert values.isfinite().all()


def test_no_table_is_left_out_of_these_tests(schedule: NoiseSchedule) -> None:
    assert sorted(name for name, value in vars(schedule).items() if isinstance(value, Tensor)) == sorted(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_to_rounds_each_table_once_and_leaves_the_original(schedule: NoiseSchedule, table: str) -> None:
    moved = schedule.to(torch.device("cpu"))
    assert torch.equal(getattr(moved, table), getattr(schedule, table).to(torch.float32))
    assert getattr(schedule, table).dtype == torch.float64
    assert moved.timesteps == 1000
    assert moved.params == REFERENCE


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_q_sample_has_the_mean_and_variance_of_theory(schedule: NoiseSchedule, t: int) -> None:
    draws = 200_000
    x_start = torch.full((draws, 1, 1, 1), 0.7, dtype=torch.float64)
    x_t = schedule.q_sample(x_start, torch.full((draws,), t), normal(draws, 1, 1, 1))
    mean, variance = alpha_bar(t) ** 0.5 * 0.7, 1 - alpha_bar(t)
    # Five standard errors of each estimate.
    assert x_t.mean().item() == pytest.approx(mean, abs=5 * (variance / draws) ** 0.5)
    assert x_t.var().item() == pytest.approx(variance, rel=5 * (2 / draws) ** 0.5)


def test_q_sample_takes_each_images_own_timestep(schedule: NoiseSchedule) -> None:
    x_start, noise = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    x_t = schedule.q_sample(x_start, torch.tensor([0, 500, 999]), noise)
    for image, t in enumerate([0, 500, 999]):
        expected = alpha_bar(t) ** 0.5 * x_start[image] + (1 - alpha_bar(t)) ** 0.5 * noise[image]
        torch.testing.assert_close(x_t[image], expected, rtol=1e-11, atol=1e-12)


def test_q_sample_keeps_the_dtype_of_the_images(schedule: NoiseSchedule) -> None:
    x_start = torch.zeros(2, 1, 2, 2)
    assert schedule.q_sample(x_start, torch.tensor([3, 4]), torch.ones_like(x_start)).dtype == torch.float32


def test_one_step_of_noise_after_another_is_the_closed_form(schedule: NoiseSchedule) -> None:
    # Mean and variance of x_t from x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) eps alone (eq. 2).
    mean, variance = 1.0, 0.0
    one, nothing = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for t, beta in enumerate(np.linspace(1e-4, 0.02, 1000)):
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        if t in TIMESTEPS:
            index = torch.tensor([t])
            assert schedule.q_sample(one, index, nothing).item() == pytest.approx(mean, rel=1e-11)
            assert schedule.q_sample(nothing, index, one).item() ** 2 == pytest.approx(variance, rel=1e-11)


@pytest.mark.parametrize("t", [1, 2, 10, 500, 999])
def test_q_posterior_is_bayes_rule(schedule: NoiseSchedule, t: int) -> None:
    x_start, x_t = normal(1, 1, 2, 2, seed=3), normal(1, 1, 2, 2, seed=4)
    # q(x_{t-1} | x_t, x_0) ~ q(x_t | x_{t-1}) q(x_{t-1} | x_0). As functions of x_{t-1} these are Gaussians:
    # precisions add, and the mean is the average weighted by them.
    beta = 1e-4 + (0.02 - 1e-4) * t / 999
    step_precision, step_mean = (1 - beta) / beta, x_t / (1 - beta) ** 0.5
    prior_precision, prior_mean = 1 / (1 - alpha_bar(t - 1)), alpha_bar(t - 1) ** 0.5 * x_start
    expected_variance = 1 / (step_precision + prior_precision)
    expected_mean = expected_variance * (step_precision * step_mean + prior_precision * prior_mean)

    mean, variance = schedule.q_posterior(x_start, x_t, torch.tensor([t]))
    assert variance.shape == (1, 1, 1, 1)
    assert variance.item() == pytest.approx(expected_variance, rel=1e-10)
    torch.testing.assert_close(mean, expected_mean, rtol=1e-10, atol=1e-11)


def test_q_posterior_at_the_first_timestep_is_x_start_for_certain(schedule: NoiseSchedule) -> None:
    x_start, x_t = normal(1, 1, 2, 2, seed=5), normal(1, 1, 2, 2, seed=6)
    mean, variance = schedule.q_posterior(x_start, x_t, torch.tensor([0]))
    assert variance.item() == 0
    torch.testing.assert_close(mean, x_start, rtol=1e-12, atol=1e-12)


def test_posterior_variance_is_pinned(schedule: NoiseSchedule) -> None:
    assert schedule.posterior_variance[0].item() == 0
    # beta_1 (1 - abar_0) / (1 - abar_1), by hand from beta_0 = 1e-4 and beta_1.
    beta = 1e-4 + 0.0199 / 999
    assert schedule.posterior_variance[1].item() == pytest.approx(
        beta * 1e-4 / (1 - (1 - 1e-4) * (1 - beta)), rel=1e-10
    )
    assert (schedule.posterior_variance < schedule.betas).all()
    # Towards pure noise nothing of x_0 is left to narrow it: the two variances meet.
    assert schedule.posterior_variance[-1].item() == pytest.approx(0.02, rel=1e-6)


@pytest.mark.parametrize("t", TIMESTEPS)
def test_predict_x_start_inverts_q_sample(schedule: NoiseSchedule, t: int) -> None:
    x_start, noise = normal(2, 1, 3, 3, seed=7), normal(2, 1, 3, 3, seed=8)
    index = torch.full((2,), t)
    recovered = schedule.predict_x_start(schedule.q_sample(x_start, index, noise), index, noise)
    torch.testing.assert_close(recovered, x_start, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"beta_end": 5e-5}, "beta_end must be at least beta_start"),
        ({"timesteps": 0}, "timesteps"),
        ({"beta_start": 0.0}, "beta_start"),
        ({"beta_end": 1.0}, "beta_end"),
        ({"beta_end": float("nan")}, "beta_end"),
        ({"timesteps": "1000"}, "timesteps"),
        ({"beta": 0.1}, "beta"),
    ],
)
def test_params_refuse_what_is_no_schedule(change: dict[str, object], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        ScheduleParams.model_validate({**REFERENCE.model_dump(), **change})


def test_params_allow_constant_betas_and_a_single_timestep() -> None:
    constant = NoiseSchedule(ScheduleParams(timesteps=3, beta_start=0.5, beta_end=0.5))
    assert constant.alphas_cumprod.tolist() == [0.5, 0.25, 0.125]
    single = NoiseSchedule(ScheduleParams(timesteps=1, beta_start=0.25, beta_end=0.5))
    assert single.alphas_cumprod.tolist() == [0.75]
    assert single.posterior_variance.tolist() == [0]


@pytest.mark.parametrize("t", [1, 2, 250, 999])
def test_between_neighbours_it_is_the_posterior(schedule: NoiseSchedule, t: int) -> None:
    x_start, x_t, noise = (normal(3, 1, 2, 2, seed=seed) for seed in range(3))
    times = torch.full((3,), t)
    mean, variance = schedule.q_posterior(x_start, x_t, times)
    found = schedule.q_between(x_start, x_t, times - 1, times, noise)
    torch.testing.assert_close(found, mean + variance.sqrt() * noise, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("s", "t"), [(0, 999), (100, 101), (300, 700), (998, 999)])
def test_what_lies_between_has_the_marginals_of_q(schedule: NoiseSchedule, s: int, t: int) -> None:
    """x_t of x_0 and one noise, x_s of these and another: affine in both noises, so that their weights tell all."""
    x_start = normal(3, 1, 1, 1)
    steps = torch.tensor([s, s, s]), torch.tensor([t, t, t])
    zero, one = torch.zeros_like(x_start), torch.ones_like(x_start)

    def x_s(first: Tensor, second: Tensor) -> Tensor:
        return schedule.q_between(x_start, schedule.q_sample(x_start, steps[1], first), *steps, second)

    mean = x_s(zero, zero)
    torch.testing.assert_close(mean, alpha_bar(s) ** 0.5 * x_start, rtol=0, atol=1e-9)
    variance = (x_s(one, zero) - mean).square() + (x_s(zero, one) - mean).square()
    torch.testing.assert_close(variance, (1 - alpha_bar(s)) * one, rtol=0, atol=1e-9)


def test_what_lies_between_may_be_another_for_each_image(schedule: NoiseSchedule) -> None:
    x_start, x_t, noise = (normal(3, 1, 2, 2, seed=seed) for seed in range(3))
    s, t = torch.tensor([0, 10, 500]), torch.tensor([5, 999, 501])
    together = schedule.q_between(x_start, x_t, s, t, noise)
    for image in range(3):
        part = slice(image, image + 1)
        alone = schedule.q_between(x_start[part], x_t[part], s[part], t[part], noise[part])
        assert torch.equal(alone, together[part])
