"""The reverse process: parity with diffusers, exact denoisers, and images that do not depend on their batch."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from networks import unet_params
from torch import Tensor, nn

from ddpm.diffusion.samplers import PredictNoise, SamplerParams, Step, sample_loop, spaced_timesteps
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import LoadedModel, ModelCard, load_model, save_model
from ddpm.networks.sampling import batches, check_sampler, draw_batch, draw_labels
from ddpm.networks.unet import UNet
from ddpm.runtime.console import UserError
from ddpm.runtime.device import Runtime

REFERENCE = NoiseSchedule(ScheduleParams(timesteps=1000, beta_start=1e-4, beta_end=0.02))
SHAPE = (3, 1, 4, 4)
COUNTS = (0, 600, 0, 300, 0, 0, 0, 99, 1, 0)  # of the images that models were trained on
CPU = Runtime(torch.device("cpu"), torch.float32)


def sampler(name: str = "ddpm", **changes: object) -> SamplerParams:
    defaults = {
        "sampler": name,
        "steps": None,
        "spacing": "trailing",
        "variance": "posterior",
        "eta": 1.0,
        "clip": False,
        "classes": "all",
    }
    return SamplerParams.model_validate({**defaults, **changes})


def fake_model(x_t: Tensor, t: Tensor) -> Tensor:
    """Stands for a network: any fixed function, bent enough that no coefficient can hide."""
    return 0.8 * torch.sin(1.3 * x_t + 0.01 * t.view(-1, 1, 1, 1)) + 0.1 * x_t


def normals(seed: int = 0) -> Iterator[Tensor]:
    source = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(SHAPE, generator=source, dtype=torch.float64)


def noise_from(draws: Iterator[Tensor]) -> Callable[[], Tensor]:
    return lambda: next(draws)


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
    source = torch.Generator().manual_seed(seed)
    x_t = torch.randn(SHAPE, generator=source, dtype=torch.float64)
    for t in scheduler.timesteps:
        step = scheduler.step(fake_model(x_t, t.expand(len(x_t))), t, x_t, generator=source)
        yield Step(int(t), step.prev_sample, step.pred_original_sample)
        x_t = step.prev_sample


def diffusers_ddim(steps: int, eta: float, clip: bool, spacing: str = "trailing", seed: int = 0) -> Iterator[Step]:
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=clip,
        set_alpha_to_one=True,
        timestep_spacing=spacing,
    )
    to_float64(scheduler)
    scheduler.set_timesteps(steps)
    draws = normals(seed)
    x_t = next(draws)
    for t in scheduler.timesteps:
        pred_noise = fake_model(x_t, t.expand(len(x_t)))
        drawn = next(draws) if eta else None
        step = scheduler.step(pred_noise, int(t), x_t, eta=eta, use_clipped_model_output=clip, variance_noise=drawn)
        yield Step(int(t), step.prev_sample, step.pred_original_sample)
        x_t = step.prev_sample


def diffusers_dpmpp_2m(walk: list[int], stochastic: bool, clip: bool, seed: int = 0) -> Iterator[Step]:
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
    scheduler.set_timesteps(timesteps=walk)
    alpha_bar = REFERENCE.alphas_cumprod[scheduler.timesteps]
    scheduler.sigmas = torch.cat([((1 - alpha_bar) / alpha_bar).sqrt(), torch.zeros(1, dtype=torch.float64)])
    draws = normals(seed)
    x_t = next(draws)
    for t in scheduler.timesteps:
        drawn = next(draws) if stochastic and t != scheduler.timesteps[-1] else torch.zeros_like(x_t)
        pred_noise = fake_model(x_t, t.expand(len(x_t)))
        x_prev = scheduler.step(pred_noise, t, x_t, variance_noise=drawn).prev_sample
        yield Step(int(t), x_prev, scheduler.model_outputs[-1])
        x_t = x_prev


def assert_same_walk(ours: list[Step], theirs: list[Step]) -> None:
    assert [step.t for step in ours] == [step.t for step in theirs]
    for our, their in zip(ours, theirs, strict=True):
        # diffusers adds noise of variance 1e-20 at the last step, hence 1e-9.
        torch.testing.assert_close(our.x_prev, their.x_prev, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(our.pred_x_start, their.pred_x_start, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 100, 64, 7, 1])
def test_ddpm_walks_as_diffusers_fixed_small(steps: int | None, clip: bool) -> None:
    ours = list(sample_loop(fake_model, REFERENCE, sampler(steps=steps, clip=clip), noise_from(normals())))
    assert_same_walk(ours, list(diffusers_ddpm(steps or 1000, "fixed_small", clip)))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 100, 7])
def test_ddpm_with_variance_beta_walks_as_diffusers_fixed_large(steps: int | None, clip: bool) -> None:
    params = sampler(steps=steps, clip=clip, variance="beta")
    ours = list(sample_loop(fake_model, REFERENCE, params, noise_from(normals())))
    theirs = list(diffusers_ddpm(steps or 1000, "fixed_large", clip))
    # At a last timestep that is not 0, diffusers adds noise of variance beta to the finished image; we add none.
    last = None if ours[-1].t == 0 else -1
    assert_same_walk(ours[:last], theirs[:last])
    torch.testing.assert_close(ours[-1].pred_x_start, theirs[-1].pred_x_start, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1000, 50, 4])
def test_ddim_walks_as_diffusers(steps: int, eta: float, clip: bool) -> None:
    ours = list(
        sample_loop(fake_model, REFERENCE, sampler("ddim", steps=steps, eta=eta, clip=clip), noise_from(normals()))
    )
    assert_same_walk(ours, list(diffusers_ddim(steps, eta, clip)))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1000, 100, 20, 7])
def test_ddim_takes_the_timesteps_of_diffusers(steps: int, spacing: str) -> None:
    params = sampler("ddim", steps=steps, eta=0.0, spacing=spacing)
    theirs = list(diffusers_ddim(steps, 0, clip=False, spacing=spacing))
    ours = list(sample_loop(fake_model, REFERENCE, params, noise_from(normals())))
    assert [step.t for step in ours] == [step.t for step in theirs]
    if 1000 % steps == 0:  # else DDIMScheduler does not step to the next of its own timesteps
        assert_same_walk(ours[:-1], theirs[:-1])


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "linspace", "log_snr"])
@pytest.mark.parametrize("steps", [100, 50, 20, 5, 2, 1])
def test_dpmpp_2m_walks_as_diffusers(steps: int, spacing: str, eta: float, clip: bool) -> None:
    params = sampler("dpmpp_2m", steps=steps, spacing=spacing, eta=eta, clip=clip)
    ours = list(sample_loop(fake_model, REFERENCE, params, noise_from(normals())))
    theirs = list(diffusers_dpmpp_2m([step.t for step in ours], stochastic=eta == 1, clip=clip))
    for our, their in zip(ours, theirs, strict=True):
        # diffusers rounds every x_t to float32, and the network bends the difference.
        torch.testing.assert_close(our.x_prev, their.x_prev, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(our.pred_x_start, their.pred_x_start, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [False, True])
def test_clip_bounds_every_estimate_and_matters(clip: bool) -> None:
    walk = list(sample_loop(fake_model, REFERENCE, sampler(steps=20, clip=clip), noise_from(normals())))
    highest = max(step.pred_x_start.abs().max().item() for step in walk)
    assert highest == 1 if clip else highest > 1


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("t", [1, 500, 999])
def test_one_ancestral_step_is_the_posterior(t: int, clip: bool) -> None:
    # Two timesteps of a walk, t and t - 1, from a schedule cut off after t: its first step is ours to check.
    cut = NoiseSchedule(ScheduleParams(timesteps=t + 1, beta_start=1e-4, beta_end=REFERENCE.betas[t].item()))
    draws = normals()
    x_t, z = next(draws), next(draws)
    first = next(sample_loop(fake_model, cut, sampler(clip=clip), noise_from(normals())))
    index = torch.full((3,), t)
    pred_x_start = REFERENCE.predict_x_start(x_t, index, fake_model(x_t, index))
    pred_x_start = pred_x_start.clamp(-1, 1) if clip else pred_x_start
    mean, variance = REFERENCE.q_posterior(pred_x_start, x_t, index)
    assert first.t == t
    torch.testing.assert_close(first.pred_x_start, pred_x_start, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first.x_prev, mean + variance.sqrt() * z, rtol=1e-9, atol=1e-9)


def test_the_articles_backward_step() -> None:
    x_t, z = (draw for draw, _ in zip(normals(), range(2), strict=False))
    first = next(sample_loop(fake_model, REFERENCE, sampler(), noise_from(normals())))
    beta, alpha_bar, alpha_bar_prev = 0.02, REFERENCE.alphas_cumprod[999], REFERENCE.alphas_cumprod[998]
    pred_noise = fake_model(x_t, torch.full((3,), 999))
    mean = (x_t - beta * pred_noise / (1 - alpha_bar).sqrt()) / (1 - beta) ** 0.5
    variance = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
    torch.testing.assert_close(first.x_prev, mean + variance.sqrt() * z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 30])
def test_ddim_with_eta_1_is_ddpm_with_the_posterior_variance(steps: int | None, clip: bool) -> None:
    ddpm = list(sample_loop(fake_model, REFERENCE, sampler(steps=steps, clip=clip), noise_from(normals())))
    ddim = list(sample_loop(fake_model, REFERENCE, sampler("ddim", steps=steps, clip=clip), noise_from(normals())))
    assert_same_walk(ddim, ddpm)


def gaussian_denoiser(mean: Tensor | float, deviation: float) -> PredictNoise:
    """The exact expected noise in x_t where the data is N(mean, deviation^2): for 0, a single point."""

    def predict_noise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar = REFERENCE.alphas_cumprod[t].view(-1, 1, 1, 1)
        variance = alpha_bar * deviation**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * mean) / variance

    return predict_noise


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
    walk = list(sample_loop(gaussian_denoiser(x_start, 0), REFERENCE, params, noise_from(normals())))
    for step in walk:
        torch.testing.assert_close(step.pred_x_start, x_start, rtol=0, atol=1e-11)
    torch.testing.assert_close(walk[-1].x_prev, x_start, rtol=0, atol=1e-12)


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
    for step in sample_loop(gaussian_denoiser(mean, deviation), REFERENCE, params, noise):
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
    *walk, (_, last_mean, last_variance) = moments(0, 1, sampler(variance="beta"))
    assert [variance for _, _, variance in walk] == pytest.approx([1] * 999, rel=1e-9)
    assert last_mean == 0
    # The last step adds no noise: it gives E[x_0 | x_1], whose variance is alphas_cumprod[0].
    assert last_variance == pytest.approx(1 - 1e-4, rel=1e-9)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_gaussian_data_is_drawn_with_its_mean_and_variance(variance: str) -> None:
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
    walk = list(
        sample_loop(
            gaussian_denoiser(mean, deviation), REFERENCE, sampler(name, steps=steps, eta=0.0), noise_from(normals())
        )
    )
    assert walk[steps // 2].t == 499
    x_t = next(normals())

    def standardised(x: Tensor, t: int) -> Tensor:
        alpha_bar = REFERENCE.alphas_cumprod[t]
        return (x - alpha_bar.sqrt() * mean) / (alpha_bar * deviation**2 + 1 - alpha_bar).sqrt()

    # The equation moves every quantile to the same quantile.
    return (standardised(walk[steps // 2 - 1].x_prev, 499) - standardised(x_t, 999)).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    coarse, fine, finer = (errors_half_way(name, steps) for steps in (50, 100, 200))
    assert coarse / fine == pytest.approx(2**order, rel=0.2)
    assert fine / finer == pytest.approx(2**order, rel=0.1)


def test_the_second_order_draws_gaussian_data_more_truly() -> None:
    for eta in (0.0, 1.0):
        variances = []
        for name in ("ddim", "dpmpp_2m"):
            *_, (_, mean, variance) = moments(0.3, 0.5, sampler(name, steps=20, eta=eta, spacing="log_snr"))
            assert mean == pytest.approx(0.3, abs=0.01)
            variances.append(abs(variance - 0.25))
        assert variances[1] < variances[0] / 3


def test_gaussian_data_by_drawing_it() -> None:
    draws, source = 20_000, torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(draws, 1, 1, 1, generator=source, dtype=torch.float64)

    *_, last = sample_loop(gaussian_denoiser(0.3, 0.5), REFERENCE, sampler(steps=200), noise)
    *_, (_, mean, variance) = moments(0.3, 0.5, sampler(steps=200))
    # Five standard errors.
    assert last.x_prev.mean().item() == pytest.approx(mean, abs=5 * (variance / draws) ** 0.5)
    assert last.x_prev.var().item() == pytest.approx(variance, rel=5 * (2 / draws) ** 0.5)


@pytest.mark.parametrize(
    ("params", "draws"),
    [
        (sampler(steps=10), 10),
        (sampler(steps=10, variance="beta"), 10),
        (sampler("ddim", steps=10, eta=1.0), 10),
        (sampler("ddim", steps=10, eta=0.1), 10),
        (sampler("ddim", steps=10, eta=0.0), 1),
        (sampler("dpmpp_2m", steps=10, eta=1.0), 10),
        (sampler("dpmpp_2m", steps=10, eta=0.0), 1),
        (sampler(steps=1), 1),
        (sampler(), 1000),
    ],
)
def test_noise_is_drawn_at_the_start_and_at_every_step_but_the_last(params: SamplerParams, draws: int) -> None:
    drawn = []
    source = normals()

    def noise() -> Tensor:
        drawn.append(None)
        return next(source)

    for _ in sample_loop(fake_model, REFERENCE, params, noise):
        pass
    assert len(drawn) == draws


def test_the_network_sees_x_t_and_one_t_for_each_image() -> None:
    seen = []

    def predict_noise(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t, t))
        return fake_model(x_t, t)

    walk = list(sample_loop(predict_noise, REFERENCE, sampler(steps=4), noise_from(normals())))
    assert [t.tolist() for _, t in seen] == [[999] * 3, [749] * 3, [499] * 3, [249] * 3]
    assert all(t.dtype == torch.int64 for _, t in seen)
    assert [step.t for step in walk] == [999, 749, 499, 249]
    assert torch.equal(seen[0][0], next(normals()))
    for step, (x_t, _) in zip(walk[:-1], seen[1:], strict=True):
        assert torch.equal(step.x_prev, x_t)
    assert torch.equal(walk[-1].x_prev, walk[-1].pred_x_start)


def spaced(timesteps: int, steps: int | None, spacing: str = "trailing") -> list[int]:
    return spaced_timesteps(
        NoiseSchedule(ScheduleParams(timesteps=timesteps, beta_start=1e-4, beta_end=0.02)), steps, spacing
    )


@pytest.mark.parametrize(
    ("timesteps", "steps", "expected"),
    [
        (1000, 10, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
        (1000, 4, [999, 749, 499, 249]),
        (1000, 3, [999, 666, 332]),
        (1000, 1, [999]),
        (5, None, [4, 3, 2, 1, 0]),
        (5, 5, [4, 3, 2, 1, 0]),
        (5, 4, [4, 3, 1, 0]),
        (5, 2, [4, 1]),
        (1, None, [0]),
    ],
)
def test_spaced_timesteps(timesteps: int, steps: int | None, expected: list[int]) -> None:
    assert spaced(timesteps, steps) == expected


@pytest.mark.parametrize(
    ("steps", "spacing", "expected"),
    [
        (4, "leading", [750, 500, 250, 0]),
        (3, "leading", [666, 333, 0]),
        (1, "leading", [0]),
        (4, "linspace", [999, 666, 333, 0]),
        (3, "linspace", [999, 500, 0]),
        (1, "linspace", [999]),
        (1, "log_snr", [999]),
        (2, "log_snr", [999, 0]),
    ],
)
def test_other_spacings(steps: int, spacing: str, expected: list[int]) -> None:
    assert spaced(1000, steps, spacing) == expected


def test_log_snr_is_even_where_the_timesteps_are_fine() -> None:
    walk = spaced(1000, 20, "log_snr")
    assert (walk[0], walk[-1]) == (999, 0)
    steps = REFERENCE.alphas_cumprod[walk].logit().diff()
    # The first timesteps are further apart than the grid, the others are within half of a timestep.
    assert steps[:-3] == pytest.approx(steps[0].item(), rel=0.12)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "log_snr", "trailing"])
@pytest.mark.parametrize("timesteps", [1, 2, 37, 200])
def test_every_spacing_takes_each_timestep_at_most_once(timesteps: int, spacing: str) -> None:
    for steps in range(1, timesteps + 1):
        walk = spaced(timesteps, steps, spacing)
        assert len(walk) == steps
        assert sorted(set(walk), reverse=True) == walk
        assert 0 <= walk[-1] <= walk[0] < timesteps
    assert walk == list(reversed(range(timesteps)))


@pytest.mark.parametrize("timesteps", [1, 2, 37, 200])
def test_spaced_timesteps_are_the_exact_fractions_rounded(timesteps: int) -> None:
    for steps in range(1, timesteps + 1):
        walk = spaced(timesteps, steps)
        assert walk == [round(Fraction(timesteps) - Fraction(i * timesteps, steps)) - 1 for i in range(steps)]
        assert walk[0] == timesteps - 1
        assert walk[-1] >= 0
        assert sorted(set(walk), reverse=True) == walk


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps is 11, but the model has only 10 timesteps"):
        spaced(10, 11)
    with pytest.raises(ValueError, match="1001"):
        next(sample_loop(fake_model, REFERENCE, sampler(steps=1001), noise_from(normals())))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"eta": 1.1},
        {"eta": -0.1},
        {"sampler": "euler"},
        {"variance": "learned"},
        {"clip": 1},
        {"spacing": "karras"},
        {"classes": ()},
        {"classes": (10,)},
    ],
)
def test_sampler_params_refuse(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        sampler(**change)


def tiny_model(
    folder: Path, block: str = "residual", prediction: str = "v", class_conditional: bool = True
) -> LoadedModel:
    """A tiny model through its file, saved while in training mode, none of its weights zero."""
    params = unet_params(
        channels=(4, 8),
        block=block,
        patch_size=2,
        attention=True,
        class_conditional=class_conditional,
        prediction=prediction,
    )
    schedule = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=1e-2, beta_end=0.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(params, schedule).train()
        for name, weight in model.state_dict().items():
            if weight.is_floating_point():
                weight.copy_(0.5 + torch.rand_like(weight) if "running_var" in name else 0.3 * torch.randn_like(weight))
    save_model(folder / "model.safetensors", model, schedule, COUNTS)
    return load_model(folder / "model.safetensors")


@pytest.fixture(
    params=[("double_conv", "noise", True), ("residual", "noise", False), ("residual", "v", True)],
    ids=["double_conv", "unconditional", "residual"],
)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return tiny_model(tmp_path, *request.param)


def draw(loaded: LoadedModel, indices: list[int], seed: int = 0, **changes: object) -> Tensor:
    *_, last = draw_batch(loaded, sampler(**changes), seed, indices, CPU)
    return last.x_prev.clone()


@pytest.mark.parametrize("changes", [{}, {"name": "ddim", "eta": 0.0, "steps": 4, "clip": True}])
def test_an_image_does_not_depend_on_its_batch(loaded: LoadedModel, changes: dict[str, object]) -> None:
    together = draw(loaded, [0, 1, 2, 3, 4], **changes)
    assert together.shape == (5, 1, 28, 28)
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    # Convolutions add in another order for another batch size.
    torch.testing.assert_close(draw(loaded, [3], **changes)[0], together[3], rtol=0, atol=1e-5)
    torch.testing.assert_close(draw(loaded, [4, 3, 17], **changes)[:2], together[[4, 3]], rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_drawing_again_gives_equal_bits_and_another_seed_other_images(loaded: LoadedModel) -> None:
    assert torch.equal(draw(loaded, [0, 1]), draw(loaded, [0, 1]))
    assert (draw(loaded, [0, 1]) - draw(loaded, [0, 1], seed=1)).abs().max() > 0.1


def test_the_network_draws_in_evaluation_mode_and_leaves_no_mode_behind(loaded: LoadedModel) -> None:
    modes = []
    nn.Module.register_forward_pre_hook(loaded.model, lambda module, _: modes.append(module.training))
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    for step in draw_batch(loaded, sampler(), 0, [0, 1], CPU):
        assert not torch.is_inference_mode_enabled()
        assert not step.x_prev.requires_grad
    assert modes == [False] * 10
    assert not any(module.training for module in loaded.model.modules())
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize(
    ("first", "count", "size", "expected"),
    [
        (0, 10, 4, [range(0, 4), range(4, 8), range(8, 10)]),
        (7, 4, 2, [range(7, 9), range(9, 11)]),
        (5, 3, 128, [range(5, 8)]),
        (5, 0, 128, []),
    ],
)
def test_batches_cover_the_indices_once_and_in_order(first: int, count: int, size: int, expected: list[range]) -> None:
    assert list(batches(first, count, size)) == expected


def test_steps_are_checked_against_the_model(loaded: LoadedModel) -> None:
    assert check_sampler(loaded, sampler()) == 10
    assert check_sampler(loaded, sampler(steps=4)) == 4
    with pytest.raises(UserError, match="steps is 11, but the model has only 10 timesteps"):
        check_sampler(loaded, sampler(steps=11))
    with pytest.raises(UserError, match="steps is 11"):
        next(draw_batch(loaded, sampler(steps=11), 0, [0], CPU))


def test_classes_that_the_model_has_not_seen_are_refused(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    for classes in ([1], [8, 3], [1, 3, 7, 8]):
        assert check_sampler(loaded, sampler(classes=classes)) == 10
    for classes, unknown in (([2], 2), ([7, 9, 0], 0), ([0, 1], 0)):
        with pytest.raises(UserError) as caught:
            check_sampler(loaded, sampler(classes=classes))
        assert str(caught.value) == f"classes: the model has not seen {unknown}; choose from [1, 3, 7, 8]"
        with pytest.raises(UserError, match=f"has not seen {unknown}"):
            next(draw_batch(loaded, sampler(classes=classes), 0, [0], CPU))


def test_classes_of_a_model_that_is_told_none_are_refused(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path, class_conditional=False)
    assert check_sampler(loaded, sampler()) == 10
    for classes in ([7], [2], [1, 3, 7, 8]):
        with pytest.raises(UserError, match=r"^classes: this model is not class-conditional; say all, or train one"):
            check_sampler(loaded, sampler(classes=classes))


def card(counts: tuple[int, ...] = COUNTS) -> ModelCard:
    params = unet_params(class_conditional=True, prediction="v")
    return ModelCard(model=params, schedule=REFERENCE.params, class_counts=counts)


def test_a_label_is_that_of_seed_and_index_alone() -> None:
    together = draw_labels(card(), sampler(), 3, range(200))
    assert together.dtype == torch.int64
    assert together.tolist() == [draw_labels(card(), sampler(), 3, [index]).item() for index in range(200)]
    parts = [draw_labels(card(), sampler(), 3, indices) for indices in batches(0, 200, 7)]
    assert torch.equal(torch.cat(parts), together)
    assert draw_labels(card(), sampler(), 3, [150, 4, 99]).tolist() == together[[150, 4, 99]].tolist()
    assert not torch.equal(draw_labels(card(), sampler(), 4, range(200)), together)
    assert torch.equal(draw_labels(card(), sampler("ddim", steps=3), 3, range(200)), together)
    in_order = draw_labels(card(), sampler(classes=[3, 7]), 3, range(200))
    assert torch.equal(draw_labels(card(), sampler(classes=[7, 3]), 3, range(200)), in_order)


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        (COUNTS, "all"),
        (COUNTS, [3, 7]),
        (COUNTS, [8, 1]),
        ((5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), "all"),
        ((5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), [9, 0, 4]),
        ((5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), [7, 7, 3]),
        ((1, 0, 0, 0, 0, 0, 0, 0, 0, 10**12), "all"),
    ],
)
def test_classes_are_as_frequent_as_in_training(counts: tuple[int, ...], classes: object) -> None:
    draws = 20_000
    drawn = draw_labels(card(counts), sampler(classes=classes), 0, range(draws)).bincount(minlength=10)
    wanted = range(10) if classes == "all" else classes
    shares = torch.tensor([count if label in wanted else 0 for label, count in enumerate(counts)]).double()
    shares /= shares.sum()
    assert drawn[shares == 0].sum() == 0
    deviation = (draws * shares * (1 - shares)).sqrt()
    assert ((drawn - draws * shares).abs() <= 5 * deviation + 1).all()


@pytest.mark.parametrize("place", [0.0, 0.5, 1 - 2**-24])
def test_no_draw_gives_a_class_that_the_model_has_not_seen(place: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), place))
    for label in range(10):
        only = tuple(60_001 * (each == label) for each in range(10))
        assert draw_labels(card(only), sampler(), 0, [0, 1]).tolist() == [label, label]
    assert draw_labels(card(), sampler(), 0, [0]).item() == {0.0: 1, 0.5: 1, 1 - 2**-24: 8}[place]


def test_the_network_is_told_the_labels_that_were_drawn(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    told = []
    nn.Module.register_forward_pre_hook(loaded.model, lambda _, given: told.append(given[2]))
    for changes in ({}, {"classes": [3, 8]}):
        told.clear()
        draw(loaded, [5, 0, 30], seed=2, **changes)
        expected = draw_labels(loaded.card, sampler(**changes), 2, [5, 0, 30])
        assert len(told) == 10
        assert all(torch.equal(labels, expected) for labels in told)


def test_each_class_has_pictures_of_its_own(tmp_path: Path) -> None:
    loaded = tiny_model(tmp_path)
    with torch.no_grad():
        loaded.model.label.weight *= 30  # loud beside the time
    drawn = {label: draw(loaded, [0, 1], classes=[label]) for label in (1, 3, 7)}
    for label, others in ((1, (3, 7)), (3, (1, 7))):
        for other in others:
            assert (drawn[label] - drawn[other]).abs().amax(dim=(1, 2, 3)).min() > 0.1
    mixed, labels = draw(loaded, list(range(8))), draw_labels(loaded.card, sampler(), 0, range(8))
    assert len(labels.unique()) > 1
    for label in (1, 3, 7):
        # By itself each is what it is among others.
        alone = draw(loaded, list(range(8)), classes=[label])
        torch.testing.assert_close(mixed[labels == label], alone[labels == label], rtol=0, atol=1e-4)
