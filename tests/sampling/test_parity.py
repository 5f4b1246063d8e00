"""The samplers take the steps of diffusers."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from ddpm.sample import Step, p_sample_loop
from tests.sampling.reverse import (
    REFERENCE,
    SHAPE,
    assert_same_steps,
    fake_denoise,
    fake_model,
    noise_from,
    normals,
    sampler,
)


def to_float64(scheduler: DDPMScheduler | DDIMScheduler) -> None:
    # diffusers rounds its tables to float32; so that tolerances can be tight, it gets them from numpy, in float64.
    assert torch.allclose(scheduler.alphas_cumprod.double(), REFERENCE.alphas_cumprod, rtol=2e-4)
    scheduler.alphas_cumprod = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))


def diffusers_ddpm(steps: int, variance: str, clip: bool, seed: int = 0) -> Iterator[Step]:
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        variance_type=variance,
        clip_sample=clip,
        timestep_spacing="trailing",
    )
    to_float64(scheduler)
    scheduler.set_timesteps(steps)
    rng = torch.Generator().manual_seed(seed)
    x_t = torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    for t in scheduler.timesteps:
        step = scheduler.step(fake_model(x_t, int(t)), t, x_t, generator=rng)
        yield Step(int(t), step.prev_sample, step.pred_original_sample)
        x_t = step.prev_sample


def diffusers_ddim(steps: int, eta: float, clip: bool, seed: int = 0) -> Iterator[Step]:
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=clip,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    to_float64(scheduler)
    scheduler.set_timesteps(steps)
    draws = normals(seed)
    x_t = next(draws)
    for t in scheduler.timesteps:
        pred_noise = fake_model(x_t, int(t))
        drawn = next(draws) if eta else None
        step = scheduler.step(pred_noise, int(t), x_t, eta=eta, use_clipped_model_output=clip, variance_noise=drawn)
        yield Step(int(t), step.prev_sample, step.pred_original_sample)
        x_t = step.prev_sample


def diffusers_dpmpp_2m(chosen: list[int], stochastic: bool, clip: bool, seed: int = 0) -> Iterator[Step]:
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        solver_order=2,
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        solver_type="midpoint",
        thresholding=clip,  # with this greatest value, it is the clip
        sample_max_value=1.0,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=chosen)
    alpha_bar = REFERENCE.alphas_cumprod[scheduler.timesteps]
    scheduler.sigmas = torch.cat([((1 - alpha_bar) / alpha_bar).sqrt(), torch.zeros(1, dtype=torch.float64)])
    draws = normals(seed)
    x_t = next(draws)
    for t in scheduler.timesteps:
        drawn = next(draws) if stochastic and t != scheduler.timesteps[-1] else torch.zeros_like(x_t)
        pred_noise = fake_model(x_t, int(t))
        x_prev = scheduler.step(pred_noise, t, x_t, variance_noise=drawn).prev_sample
        yield Step(int(t), x_prev, scheduler.model_outputs[-1])
        x_t = x_prev


def k_diffusion_dpmpp_2m(chosen: list[int], eta: float, clip: bool, seed: int = 0) -> Iterator[Step]:
    """The update of k-diffusion's sample_dpmpp_2m_sde, solver "midpoint", which works on x / sqrt(abar)."""
    alpha_bar = REFERENCE.alphas_cumprod
    sigmas = [((1 - alpha_bar[t]) / alpha_bar[t]).sqrt().item() for t in chosen]
    draws = normals(seed)
    x_t, before, h_before = next(draws), None, 0.0
    x = x_t / alpha_bar[chosen[0]].sqrt()
    for place, (t, sigma) in enumerate(zip(chosen, sigmas, strict=True)):
        denoised = fake_denoise(x * alpha_bar[t].sqrt(), t)
        denoised = denoised.clamp(-1, 1) if clip else denoised
        if place == len(chosen) - 1:
            yield Step(t, denoised, denoised)
            return
        h = math.log(sigma / sigmas[place + 1])
        drift = -math.expm1(-h - eta * h)
        x = sigmas[place + 1] / sigma * math.exp(-eta * h) * x + drift * denoised
        if before is not None:
            x = x + 0.5 * drift * h / h_before * (denoised - before)
        x = x + (sigmas[place + 1] * math.sqrt(-math.expm1(-2 * eta * h)) * next(draws) if eta else 0)
        yield Step(t, x * alpha_bar[chosen[place + 1]].sqrt(), denoised)
        before, h_before = denoised, h


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("steps", [50, 5, 1])
def test_dpmpp_2m_adds_the_noise_of_k_diffusion(steps: int, eta: float, clip: bool) -> None:
    params = sampler("dpmpp_2m", steps=steps, spacing="log_snr", eta=eta, clip=clip)
    ours = list(p_sample_loop(fake_denoise, REFERENCE, params, noise_from(normals())))
    assert_same_steps(ours, list(k_diffusion_dpmpp_2m([step.t for step in ours], eta, clip)))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 100, 64, 7, 1])
def test_ddpm_steps_as_diffusers_fixed_small(steps: int | None, clip: bool) -> None:
    ours = list(p_sample_loop(fake_denoise, REFERENCE, sampler(steps=steps, clip=clip), noise_from(normals())))
    assert_same_steps(ours, list(diffusers_ddpm(steps or 1000, "fixed_small", clip)))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 100, 7])
def test_ddpm_with_variance_beta_steps_as_diffusers_fixed_large(steps: int | None, clip: bool) -> None:
    params = sampler(steps=steps, clip=clip, variance="beta")
    ours = list(p_sample_loop(fake_denoise, REFERENCE, params, noise_from(normals())))
    theirs = list(diffusers_ddpm(steps or 1000, "fixed_large", clip))
    # At a last timestep that is not 0, diffusers adds noise of variance beta to the finished image; we add none.
    last = None if ours[-1].t == 0 else -1
    assert_same_steps(ours[:last], theirs[:last])
    torch.testing.assert_close(ours[-1].pred_x_start, theirs[-1].pred_x_start, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1000, 50, 4])
def test_ddim_steps_as_diffusers(steps: int, eta: float, clip: bool) -> None:
    params = sampler("ddim", steps=steps, eta=eta, clip=clip)
    ours = list(p_sample_loop(fake_denoise, REFERENCE, params, noise_from(normals())))
    assert_same_steps(ours, list(diffusers_ddim(steps, eta, clip)))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "log_snr"])
@pytest.mark.parametrize("steps", [100, 20, 5, 2, 1])
def test_dpmpp_2m_steps_as_diffusers(steps: int, spacing: str, eta: float, clip: bool) -> None:
    params = sampler("dpmpp_2m", steps=steps, spacing=spacing, eta=eta, clip=clip)
    ours = list(p_sample_loop(fake_denoise, REFERENCE, params, noise_from(normals())))
    theirs = list(diffusers_dpmpp_2m([step.t for step in ours], stochastic=eta == 1, clip=clip))
    for our, their in zip(ours, theirs, strict=True):
        # diffusers rounds every x_t to float32, and the network bends the difference.
        torch.testing.assert_close(our.x_prev, their.x_prev, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(our.pred_x_start, their.pred_x_start, rtol=1e-4, atol=1e-4)
