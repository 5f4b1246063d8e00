"""The timesteps that are visited, what follows from the model, and schedules at their limits."""

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.model import ModelCard
from ddpm.sample import p_sample_loop, spaced_timesteps
from ddpm.schedule import LEAST_NOISE, NoiseSchedule, ScheduleParams
from tests.sampling.reverse import REFERENCE, noise_from, normals, sampler
from tests.small import DIGITS, unet_params


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


def model_card(**facts: Any) -> ModelCard:
    network = unet_params(class_conditional=True)
    return ModelCard(data=DIGITS, model=network, schedule=REFERENCE.params, class_counts=(9,) * 10, **facts)


@pytest.mark.parametrize(
    ("facts", "scale"),
    [
        ({"guides": ("autoguidance",), "images_seen": 323_520}, 1.3),
        ({"guides": ("autoguidance",), "images_seen": 10**7}, 1.3),
        ({"guides": ("autoguidance",), "images_seen": 107_000}, 1.1),
        ({"guides": ("autoguidance",), "images_seen": 1000}, 1),
        ({"guides": ("autoguidance",)}, 1.3),
        ({"images_seen": 323_520}, 1),
        ({"guides": ("classifier_free",)}, 1),
    ],
)
def test_a_scale_that_is_not_set_follows_from_the_training(facts: dict[str, Any], scale: float) -> None:
    assert sampler(guidance=None).for_model(model_card(**facts)).guidance == scale
    assert sampler(guidance=2.5).for_model(model_card(**facts)).guidance == 2.5
    free = sampler(guidance=None, guide="classifier_free").for_model(model_card(**facts))
    assert free.guidance == (1.1 if "classifier_free" in facts.get("guides", ()) else 1)


def test_a_spacing_is_chosen_by_colour_unless_all_timesteps_are_taken() -> None:
    card = model_card()
    assert sampler(steps=24, spacing=None).chosen(card)["spacing"] == "cubic"
    assert "spacing" not in sampler(steps=None, spacing=None).chosen(card)


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
