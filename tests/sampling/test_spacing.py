"""Which timesteps a walk takes."""

from fractions import Fraction

import pytest

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.sampling.samplers import sample_loop, spaced_timesteps
from tests.sampling.walks import REFERENCE, fake_model, noise_from, normals, sampler


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
        (1, "power", [999]),
        (4, "power", [999, 667, 378, 143]),  # 1000 (1 - i / 4)^1.4, less one
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


@pytest.mark.parametrize("spacing", ["linspace", "leading", "log_snr", "power", "trailing"])
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
    ("spacing", "channels", "expected"),
    [
        (None, 1, "trailing"),
        (None, 3, "log_snr"),
        ("leading", 1, "leading"),
        ("trailing", 3, "trailing"),
        ("log_snr", 1, "log_snr"),
    ],
)
def test_a_spacing_that_is_not_set_is_that_which_suits_the_colours(
    spacing: str | None, channels: int, expected: str
) -> None:
    params = sampler(steps=4, spacing=spacing)
    assert params.for_images(channels) == sampler(steps=4, spacing=expected)
    assert params.spacing == spacing
