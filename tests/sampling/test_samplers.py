"""The reverse process: its steps by hand, what it draws and what it shows the network."""

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.sampling.samplers import SamplerParams, sample_loop
from tests.sampling.walks import REFERENCE, assert_same_walk, fake_model, noise_from, normals, sampler


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
    pred_x_start = REFERENCE.predict_x_start(x_t, index, fake_model(x_t, t))
    pred_x_start = pred_x_start.clamp(-1, 1) if clip else pred_x_start
    mean, variance = REFERENCE.q_posterior(pred_x_start, x_t, index)
    assert first.t == t
    torch.testing.assert_close(first.pred_x_start, pred_x_start, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first.x_prev, mean + variance.sqrt() * z, rtol=1e-9, atol=1e-9)


def test_the_articles_backward_step() -> None:
    x_t, z = (draw for draw, _ in zip(normals(), range(2), strict=False))
    first = next(sample_loop(fake_model, REFERENCE, sampler(), noise_from(normals())))
    beta, alpha_bar, alpha_bar_prev = 0.02, REFERENCE.alphas_cumprod[999], REFERENCE.alphas_cumprod[998]
    pred_noise = fake_model(x_t, 999)
    mean = (x_t - beta * pred_noise / (1 - alpha_bar).sqrt()) / (1 - beta) ** 0.5
    variance = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
    torch.testing.assert_close(first.x_prev, mean + variance.sqrt() * z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, 30])
def test_ddim_with_eta_1_is_ddpm_with_the_posterior_variance(steps: int | None, clip: bool) -> None:
    ddpm = list(sample_loop(fake_model, REFERENCE, sampler(steps=steps, clip=clip), noise_from(normals())))
    ddim = list(sample_loop(fake_model, REFERENCE, sampler("ddim", steps=steps, clip=clip), noise_from(normals())))
    assert_same_walk(ddim, ddpm)


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


def test_the_network_sees_x_t_and_t() -> None:
    seen = []

    def predict_noise(x_t: Tensor, t: int) -> Tensor:
        seen.append((x_t, t))
        return fake_model(x_t, t)

    walk = list(sample_loop(predict_noise, REFERENCE, sampler(steps=4), noise_from(normals())))
    assert [t for _, t in seen] == [999, 749, 499, 249]
    assert [step.t for step in walk] == [999, 749, 499, 249]
    assert torch.equal(seen[0][0], next(normals()))
    for step, (x_t, _) in zip(walk[:-1], seen[1:], strict=True):
        assert torch.equal(step.x_prev, x_t)
    assert torch.equal(walk[-1].x_prev, walk[-1].pred_x_start)


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
        {"classes": (1.5,)},
        {"classes": "7"},
    ],
)
def test_sampler_params_refuse(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        sampler(**change)
