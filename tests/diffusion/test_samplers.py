"""The samplers take the steps of diffusers; the timesteps that are visited; schedules at the limits."""

import math
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from ddpm.diffusion.sample import SAMPLERS, Estimate, Step, dpmpp_2m, log_snr_of, spaced_timesteps
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.params.sample import StepParams
from ddpm.params.schedule import LEAST_NOISE
from tests.reverse import REFERENCE, SHAPE, normals, reverse, sampler


@pytest.mark.parametrize("eta", [0.25, 0.9])
def test_dpmpp_2m_adds_the_share_of_new_noise_of_k_diffusion(eta: float) -> None:
    abar, abar_prev = REFERENCE.alphas_cumprod[[500, 300]].tolist()
    h = (log_snr_of(abar_prev) - log_snr_of(abar)) / 2
    _, variance = dpmpp_2m(torch.zeros(1), Estimate(torch.zeros(1), abar), None, abar_prev, eta)
    assert variance == pytest.approx(-(1 - abar_prev) * math.expm1(-2 * eta * h))


def test_every_sampler_is_a_choice_in_params() -> None:
    assert get_args(StepParams.model_fields["sampler"].annotation) == (*SAMPLERS,)


def spaced(timesteps: int, steps: int | None) -> list[int]:
    return spaced_timesteps(NoiseSchedule(linear_betas(timesteps, 1e-4, 0.02)), steps)


def test_timesteps_are_spaced_equally_in_the_log_snr() -> None:
    assert spaced(1000, 4) == [999, 603, 73, 0]  # log SNR -10.1, -3.7, 2.8, 9.2


@pytest.mark.parametrize("timesteps", [1, 2, 37, 200])
def test_each_timestep_is_taken_at_most_once(timesteps: int) -> None:
    for steps in range(1, timesteps + 1):
        chosen = spaced(timesteps, steps)
        assert len(chosen) == steps
        assert sorted(set(chosen), reverse=True) == chosen
        assert 0 <= chosen[-1] <= chosen[0] == timesteps - 1
    assert chosen == spaced(timesteps, None) == [*reversed(range(timesteps))]


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize(
    ("timesteps", "beta_end"), [(1, LEAST_NOISE), (2, 1 - 1.01e-10), (1000, LEAST_NOISE), (100_000, 4e-4)]
)
def test_schedules_at_the_limits_are_sampled(timesteps: int, beta_end: float, name: str) -> None:
    schedule = NoiseSchedule(linear_betas(timesteps, LEAST_NOISE, beta_end))
    for steps in {min(each, timesteps) for each in (1, 2, 5)}:
        params = sampler(name, steps=steps, clip=True)
        assert reverse(lambda x_t, _: 0.9 * x_t, params, schedule)[-1].x_prev.isfinite().all()


SETTINGS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
TRAILING = SETTINGS | {"timestep_spacing": "trailing"}


def fake_noise(x_t: Tensor, t: int) -> Tensor:
    """Stands for a network that predicts the noise: any fixed function, bent enough that no coefficient can hide."""
    return 0.8 * torch.sin(1.3 * x_t + 0.01 * t) + 0.1 * x_t


def fake_denoise(x_t: Tensor, t: int) -> Tensor:
    """The estimate of x_0 that its noise implies."""
    abar = REFERENCE.alphas_cumprod[t]
    return (x_t - (1 - abar).sqrt() * fake_noise(x_t, t)) / abar.sqrt()


def assert_same_steps(
    ours: list[Step], theirs: list[Step], rtol: float = 1e-8, atol: float = 1e-9, of_x_start: float = 1e-9
) -> None:
    # diffusers adds noise of variance 1e-20 at the last step, hence 1e-9.
    assert [step.t for step in ours] == [step.t for step in theirs]
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.x_prev, their.x_prev, rtol=rtol, atol=atol)
        torch.testing.assert_close(our.pred_x_start, their.pred_x_start, rtol=rtol, atol=of_x_start)


def steps_of(scheduler: DDPMScheduler | DDIMScheduler, steps: int, **options: object) -> Iterator[Step]:
    # diffusers rounds its tables to float32; so that tolerances can be tight, it gets them from numpy, in float64.
    assert torch.allclose(scheduler.alphas_cumprod.double(), REFERENCE.alphas_cumprod, rtol=2e-4)
    scheduler.alphas_cumprod = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    scheduler.set_timesteps(steps)
    rng = torch.Generator().manual_seed(0)
    x_t = torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    for t in scheduler.timesteps:
        step = scheduler.step(fake_noise(x_t, int(t)), t, x_t, generator=rng, **options)
        yield Step(int(t), step.prev_sample, step.pred_original_sample)
        x_t = step.prev_sample


def diffusers_dpmpp_2m(chosen: list[int], stochastic: bool, clip: bool) -> Iterator[Step]:
    scheduler = DPMSolverMultistepScheduler(
        **SETTINGS,
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        thresholding=clip,  # with this greatest value, it is the clip
        sample_max_value=1.0,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=chosen)
    abar = REFERENCE.alphas_cumprod[scheduler.timesteps]
    scheduler.sigmas = torch.cat([((1 - abar) / abar).sqrt(), torch.zeros(1, dtype=torch.float64)])
    draws = normals()
    x_t = next(draws)
    for t in scheduler.timesteps:
        drawn = next(draws) if stochastic and t != scheduler.timesteps[-1] else torch.zeros_like(x_t)
        x_prev = scheduler.step(fake_noise(x_t, int(t)), t, x_t, variance_noise=drawn).prev_sample
        yield Step(int(t), x_prev, scheduler.model_outputs[-1])
        x_t = x_prev


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 64, 7, 1])
def test_ddpm_steps_as_diffusers(steps: int | None, clip: bool) -> None:
    their_small, their_large = (
        [*steps_of(DDPMScheduler(**TRAILING, variance_type=each, clip_sample=clip), steps or 1000)]
        for each in ("fixed_small", "fixed_large")
    )
    timesteps = [step.t for step in their_small]
    small, large = (
        reverse(fake_denoise, sampler(clip=clip, variance=it), timesteps=timesteps) for it in ("posterior", "beta")
    )
    assert_same_steps(small, their_small)
    # At a last timestep that is not 0, diffusers adds noise of variance beta to the finished image; we add none.
    before_last = slice(None, None if large[-1].t == 0 else -1)
    assert_same_steps(large[before_last], their_large[before_last])


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1000, 50, 4])
def test_ddim_steps_as_diffusers(steps: int, eta: float, clip: bool) -> None:
    scheduler = DDIMScheduler(**TRAILING, clip_sample=clip)
    theirs = [*steps_of(scheduler, steps, eta=eta, use_clipped_model_output=clip)]
    ours = reverse(fake_denoise, sampler("ddim", eta=eta, clip=clip), timesteps=[step.t for step in theirs])
    assert_same_steps(ours, theirs)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [50, 5, 2, 1])
def test_dpmpp_2m_steps_as_diffusers(steps: int, eta: float, clip: bool) -> None:
    ours = reverse(fake_denoise, sampler("dpmpp_2m", steps=steps, eta=eta, clip=clip))
    # diffusers rounds every x_t to float32, and the network bends the difference.
    assert_same_steps(ours, [*diffusers_dpmpp_2m([step.t for step in ours], eta == 1, clip)], 1e-4, 1e-5, 1e-4)
