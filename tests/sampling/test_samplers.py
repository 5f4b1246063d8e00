"""The reverse process: its steps by hand, what it samples and what it shows the denoiser."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.schedule import LEAST_NOISE, NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard
from ddpm.networks.checkpoint import ModelCard
from ddpm.sampling.samplers import SamplerParams, p_sample_loop, spaced_timesteps
from tests.sampling.reverse import REFERENCE, assert_same_steps, fake_denoise, noise_from, normals, sampler
from tests.small import unet_params


@pytest.mark.parametrize("clip", [False, True])
def test_clip_bounds_every_estimate_and_matters(clip: bool) -> None:
    reverse = list(p_sample_loop(fake_denoise, REFERENCE, sampler(steps=20, clip=clip), noise_from(normals())))
    highest = max(step.pred_x_start.abs().max().item() for step in reverse)
    assert highest == 1 if clip else highest > 1


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("t", [1, 500, 999])
def test_one_ancestral_step_is_the_posterior(t: int, clip: bool) -> None:
    # Two timesteps, t and t - 1, from a schedule cut off after t: its first step is ours to check.
    cut = NoiseSchedule(ScheduleParams(timesteps=t + 1, beta_start=1e-4, beta_end=REFERENCE.betas[t].item()))
    draws = normals()
    x_t, z = next(draws), next(draws)
    first = next(p_sample_loop(fake_denoise, cut, sampler(clip=clip), noise_from(normals())))
    index = torch.full((3,), t)
    pred_x_start = fake_denoise(x_t, t)
    pred_x_start = pred_x_start.clamp(-1, 1) if clip else pred_x_start
    mean, variance = REFERENCE.q_posterior(pred_x_start, x_t, index)
    assert first.t == t
    torch.testing.assert_close(first.pred_x_start, pred_x_start, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first.x_prev, mean + variance.sqrt() * z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 30])
def test_ddim_with_eta_1_is_ddpm_with_the_posterior_variance(steps: int | None, clip: bool) -> None:
    ddpm = list(p_sample_loop(fake_denoise, REFERENCE, sampler(steps=steps, clip=clip), noise_from(normals())))
    ddim = list(p_sample_loop(fake_denoise, REFERENCE, sampler("ddim", steps=steps, clip=clip), noise_from(normals())))
    assert_same_steps(ddim, ddpm)


@pytest.mark.parametrize(
    ("params", "draws"),
    [
        (sampler(steps=10), 10),
        (sampler(steps=10, variance="beta"), 10),
        (sampler("ddim", steps=10, eta=0.1), 10),
        (sampler("ddim", steps=10, eta=0.0), 1),
        (sampler("dpmpp_2m", steps=10, eta=1.0), 10),
        (sampler("dpmpp_2m", steps=10, eta=0.0), 1),
        (sampler(steps=1), 1),
    ],
)
def test_noise_is_drawn_at_the_start_and_at_every_step_but_the_last(params: SamplerParams, draws: int) -> None:
    source, drawn = normals(), 0

    def noise() -> Tensor:
        nonlocal drawn
        drawn += 1
        return next(source)

    list(p_sample_loop(fake_denoise, REFERENCE, params, noise))
    assert drawn == draws


def test_the_denoiser_sees_x_t_and_t() -> None:
    seen = []

    def denoise(x_t: Tensor, t: int) -> Tensor:
        seen.append((x_t, t))
        return fake_denoise(x_t, t)

    reverse = list(p_sample_loop(denoise, REFERENCE, sampler(steps=4), noise_from(normals())))
    assert [t for _, t in seen] == [step.t for step in reverse] == [999, 749, 499, 249]
    assert torch.equal(seen[0][0], next(normals()))
    for step, (x_t, _) in zip(reverse[:-1], seen[1:], strict=True):
        assert torch.equal(step.x_prev, x_t)
    assert torch.equal(reverse[-1].x_prev, reverse[-1].pred_x_start)


def spaced(timesteps: int, steps: int | None, spacing: str = "trailing") -> list[int]:
    return spaced_timesteps(
        NoiseSchedule(ScheduleParams(timesteps=timesteps, beta_start=1e-4, beta_end=0.02)), steps, spacing
    )


@pytest.mark.parametrize(
    ("steps", "spacing", "expected"),
    [
        (4, "trailing", [999, 749, 499, 249]),
        (3, "trailing", [999, 666, 332]),
        (2, "log_snr", [999, 0]),
        (4, "cubic", [999, 296, 37, 0]),  # 999 (1 - i / 3)^3
    ],
)
def test_spaced_timesteps(steps: int, spacing: str, expected: list[int]) -> None:
    assert spaced(1000, steps, spacing) == expected
    assert spaced(1000, 1, spacing) == [999]


def test_log_snr_is_even_where_the_timesteps_are_fine() -> None:
    steps = REFERENCE.alphas_cumprod[spaced(1000, 20, "log_snr")].logit().diff()
    # The first timesteps are further apart than the grid, the others are within half of a timestep.
    assert steps[:-3] == pytest.approx(steps[0].item(), rel=0.12)


@pytest.mark.parametrize("spacing", ["log_snr", "cubic", "trailing"])
@pytest.mark.parametrize("timesteps", [1, 2, 37, 200])
def test_every_spacing_takes_each_timestep_at_most_once(timesteps: int, spacing: str) -> None:
    for steps in range(1, timesteps + 1):
        chosen = spaced(timesteps, steps, spacing)
        assert len(chosen) == steps
        assert sorted(set(chosen), reverse=True) == chosen
        assert 0 <= chosen[-1] <= chosen[0] == timesteps - 1
        if spacing == "trailing":
            assert chosen == [round(timesteps - Fraction(i * timesteps, steps)) - 1 for i in range(steps)]
    assert chosen == spaced(timesteps, None, spacing) == list(reversed(range(timesteps)))


def model_card(shape: tuple[int, int, int] = (1, 28, 28), **facts: Any) -> ModelCard:
    data = DataCard(name="kites", shape=shape, classes=("kite",))
    network = unet_params(channels=(4, 8), patch_size=1, class_conditional=True)
    return ModelCard(data=data, model=network, schedule=REFERENCE.params, class_counts=(9,), **facts)


def test_a_spacing_that_is_not_set_is_that_which_suits_the_colours() -> None:
    colour = model_card((3, 28, 28))
    assert sampler(spacing=None).for_model(model_card()) == sampler(spacing="cubic")
    assert sampler(spacing=None).for_model(colour) == sampler(spacing="log_snr")
    assert sampler(spacing="trailing").for_model(colour) == sampler(spacing="trailing")


@pytest.mark.parametrize(
    ("facts", "scale"),
    [
        ({"guides": ("autoguidance",), "images_seen": 323_520}, 1.3),
        ({"guides": ("autoguidance",), "images_seen": 10**7}, 1.3),
        ({"guides": ("autoguidance",), "images_seen": 107_000}, 1.1),
        ({"guides": ("autoguidance",), "images_seen": 1000}, 1),
        ({"guides": ("autoguidance",)}, 1.3),
        ({"images_seen": 323_520}, 1),
    ],
)
def test_a_scale_that_is_not_set_follows_from_the_training(facts: dict[str, Any], scale: float) -> None:
    assert sampler(guidance=None).for_model(model_card(**facts)).guidance == scale
    assert sampler(guidance=2.5).for_model(model_card(**facts)).guidance == 2.5


def test_classifier_free_guidance_has_a_scale_of_its_own() -> None:
    both = model_card(guides=("autoguidance", "classifier_free"))
    assert sampler(guidance=None, guide="classifier_free").for_model(both).guidance == 1.1


def sampled(schedule: NoiseSchedule, name: str, spacing: str, steps: int) -> Tensor:
    params = sampler(name, steps=steps, spacing=spacing, clip=True)
    *_, last = p_sample_loop(lambda x_t, _: 0.9 * x_t, schedule, params, noise_from(normals()))
    return last.x_prev


@pytest.mark.parametrize("spacing", ["trailing", "log_snr", "cubic"])
@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize(
    ("timesteps", "beta_end"), [(1, LEAST_NOISE), (2, 1 - 1.01e-10), (1000, LEAST_NOISE), (100_000, 4e-4)]
)
def test_schedules_at_the_limits_are_sampled(timesteps: int, beta_end: float, name: str, spacing: str) -> None:
    schedule = NoiseSchedule(ScheduleParams(timesteps=timesteps, beta_start=LEAST_NOISE, beta_end=beta_end))
    for steps in {min(each, timesteps) for each in (1, 2, 5)}:
        assert sampled(schedule, name, spacing, steps).isfinite().all()


def test_a_variance_that_rounding_makes_too_large_leaves_no_negative_rest() -> None:
    """Found by a search over pairs of cumulative products: beta is 1 - abar there, as far as float64 can tell."""
    schedule = NoiseSchedule(ScheduleParams(timesteps=2, beta_start=0.1, beta_end=0.2))
    schedule.alphas_cumprod = torch.tensor([0.9999999627680012, 2.3283058972029943e-10], dtype=torch.float64)
    assert sampled(schedule, "ddpm", "trailing", 2).isfinite().all()
