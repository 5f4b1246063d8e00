"""The reverse process: from pure noise to images. Every sampler is a generator of its steps.

`ddpm` is the ancestral process of Ho et al. 2020 (arXiv:2006.11239), `ddim` the generalised one of Song et al. 2021
(arXiv:2010.02502).
"""

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ddpm.params import Section
from ddpm.schedule import NoiseSchedule

PredictNoise = Callable[[Tensor, Tensor], Tensor]  # (x_t of (B, C, H, W), t of (B,)) -> noise like x_t
Noise = Callable[[], Tensor]  # the next standard normal draw, shaped like x_t


class SamplerParams(Section):
    """Which reverse process, and how finely it is walked."""

    sampler: Literal["ddpm", "ddim"]
    steps: Annotated[int, Field(ge=1)] | None
    variance: Literal["posterior", "beta"]
    eta: Annotated[float, Field(ge=0, le=1)]
    clip: bool


class Step(NamedTuple):
    """One step of the reverse process: from x_t to `x_prev`, by way of the estimate of the clean image."""

    t: int
    x_prev: Tensor
    pred_x_start: Tensor


def spaced_timesteps(timesteps: int, steps: int | None) -> list[int]:
    """`steps` of the T timesteps, evenly spaced and descending from T-1 ("trailing" spacing); None takes all T.

    Raises:
        ValueError: steps > timesteps.
    """
    steps = steps or timesteps
    if steps > timesteps:
        raise ValueError(f"steps is {steps}, but the model has only {timesteps} timesteps")
    return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]


def sample_loop(
    predict_noise: PredictNoise, schedule: NoiseSchedule, params: SamplerParams, noise: Noise
) -> Iterator[Step]:
    """Walk the reverse process from x_T ~ N(0, I), one `Step` for each evaluation of `predict_noise`.

    Both samplers are one update. With abar the cumulative product of the alphas at t, and abar' the one at the next
    timestep of the walk,

        x_prev = sqrt(abar') x_0 + sqrt(1 - abar' - s^2) eps + s z,

    where x_0 is the estimate of the clean image and eps the noise that it implies (Song et al. 2021, eq. 12). With the
    posterior variance, beta (1 - abar') / (1 - abar), as s^2, the mean is that of q(x_prev | x_t, x_0), and the process
    that of Ho et al. 2020 (eqs. 7 and 11, algorithm 2). `ddpm` draws its noise z with that variance or with beta
    (section 3.2 there); `ddim` takes eta^2 times the posterior variance, in mean and noise alike.

    Args:
        noise: called once for x_T, then once for every step that adds noise.

    Raises:
        ValueError: params.steps exceeds the schedule's timesteps.
    """
    walk = spaced_timesteps(schedule.timesteps, params.steps)
    x_t = noise()
    for t, t_prev in zip(walk, [*walk[1:], None], strict=True):
        alpha_bar = float(schedule.alphas_cumprod[t])
        alpha_bar_prev = 1.0 if t_prev is None else float(schedule.alphas_cumprod[t_prev])
        pred_noise = predict_noise(x_t, torch.full((len(x_t),), t, device=x_t.device))
        pred_x_start = (x_t - math.sqrt(1 - alpha_bar) * pred_noise) / math.sqrt(alpha_bar)
        if params.clip:
            pred_x_start = pred_x_start.clamp(-1, 1)
            pred_noise = (x_t - math.sqrt(alpha_bar) * pred_x_start) / math.sqrt(1 - alpha_bar)
        mean_variance, noise_variance = _variances(params, alpha_bar, alpha_bar_prev)
        x_prev = math.sqrt(alpha_bar_prev) * pred_x_start + math.sqrt(1 - alpha_bar_prev - mean_variance) * pred_noise
        if t_prev is not None and noise_variance > 0:
            x_prev = x_prev + math.sqrt(noise_variance) * noise()
        yield Step(t, x_prev, pred_x_start)
        x_t = x_prev


def _variances(params: SamplerParams, alpha_bar: float, alpha_bar_prev: float) -> tuple[float, float]:
    """s^2 as it enters the mean, and the variance of the noise that is added."""
    beta = 1 - alpha_bar / alpha_bar_prev
    posterior = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
    if params.sampler == "ddim":
        return params.eta**2 * posterior, params.eta**2 * posterior
    return posterior, posterior if params.variance == "posterior" else beta
