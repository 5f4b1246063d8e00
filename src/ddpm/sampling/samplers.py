"""The reverse process: from pure noise to images. Every sampler is a generator of its steps.

`ddpm` is the ancestral process of Ho et al. 2020 (arXiv:2006.11239), `ddim` the generalised one of Song et al. 2021
(arXiv:2010.02502), `dpmpp_2m` the second-order multistep solver of Lu et al. 2022 (DPM-Solver++, arXiv:2211.01095), of
the ordinary differential equation with eta 0, of the stochastic one with eta 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.images.card import Classes
from ddpm.networks.checkpoint import Guide
from ddpm.pipeline.params import Section
from ddpm.sampling.guidance import PredictNoise

LogSNR = Annotated[float, Field(ge=-100, le=100)]
POWER = 1.4  # of the spacing of this name; docs/samplers.md has what else was tried
Noise = Callable[[], Tensor]  # the next standard normal draw, shaped like x_t


class SamplerParams(Section):
    """Which reverse process, how finely it is walked, and to what."""

    sampler: Literal["ddpm", "ddim", "dpmpp_2m"]
    steps: Annotated[int, Field(ge=1, le=100_000)] | None
    spacing: Literal["trailing", "log_snr", "power"] | None
    variance: Literal["posterior", "beta"]
    eta: Annotated[float, Field(ge=0, le=1)]
    clip: bool
    guidance: Annotated[float, Field(ge=0, le=1000)]
    guide: Guide
    guidance_interval: tuple[LogSNR, LogSNR]
    classes: Classes

    @field_validator("guidance_interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError("must be from, to in ascending order")
        return interval

    def for_images(self, channels: int) -> "SamplerParams":
        """With the spacing, where it is not set, that suits grey or coloured images."""
        spacing = self.spacing or ("trailing" if channels == 1 else "log_snr")
        return self.model_copy(update={"spacing": spacing})


class Step(NamedTuple):
    """One step of the reverse process: from x_t to `x_prev`, by way of the estimate of the clean image."""

    t: int
    x_prev: Tensor
    pred_x_start: Tensor


def spaced_timesteps(schedule: NoiseSchedule, steps: int | None, spacing: str | None) -> list[int]:
    """`steps` of the T timesteps, descending; None takes all T.

    trailing, or None: equal steps down from T-1. log_snr: from T-1 to 0 in equal steps of the log signal-to-noise
    ratio. power: down from T-1 as (1 - i / steps)^POWER, in smaller and smaller steps. Those two take the nearest
    timestep still free.

    Raises:
        ValueError: steps > timesteps.
    """
    timesteps = schedule.timesteps
    steps = steps or timesteps
    if steps > timesteps:
        raise ValueError(f"steps is {steps}, but the model has only {timesteps} timesteps")
    match spacing:
        case "trailing" | None:
            return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]
        case "power":
            return _each_once([round(timesteps * (1 - i / steps) ** POWER) - 1 for i in range(steps)], timesteps)
        case _:
            log_snr = schedule.alphas_cumprod.logit()
            grid = torch.linspace(float(log_snr[-1]), float(log_snr[0]), steps, dtype=log_snr.dtype)
            return _each_once([int((log_snr - wanted).abs().argmin()) for wanted in grid], timesteps)


def _each_once(wanted: Sequence[int], timesteps: int) -> list[int]:
    """A walk down the timesteps 0..timesteps-1, at those that are wanted, or the next one that is free."""
    walk, free = [], timesteps - 1
    for left, nearest in zip(reversed(range(len(wanted))), wanted, strict=True):
        walk.append(max(min(nearest, free), left))  # later steps still need `left` timesteps below
        free = walk[-1] - 1
    return walk


def sample_loop(
    predict_noise: PredictNoise,
    schedule: NoiseSchedule,
    params: SamplerParams,
    noise: Noise,
    timesteps: Sequence[int] = (),
) -> Iterator[Step]:
    """Walk the reverse process from x_T ~ N(0, I), one `Step` for each evaluation of `predict_noise`.

    All samplers are one update. With abar the cumulative product of the alphas at t, and abar' the one at the next
    timestep of the walk,

        x_prev = sqrt(abar') x_0 + sqrt(1 - abar' - s^2) eps + s z,

    where x_0 is the estimate of the clean image and eps the noise that it implies (Song et al. 2021, eq. 12). With the
    posterior variance, beta (1 - abar') / (1 - abar), as s^2, the mean is that of q(x_prev | x_t, x_0), and the process
    that of Ho et al. 2020 (eqs. 7 and 11, algorithm 2). `ddpm` draws its noise z with that variance or with beta
    (section 3.2 there); `ddim` takes eta^2 times the posterior variance, in mean and noise alike. `dpmpp_2m` is `ddim`
    with an x_0 extrapolated from two estimates, linearly in the log signal-to-noise ratio, to the middle of the step;
    the first step and the one to the clean image take the estimate as it is (Lu et al. 2022, algorithm 2).

    Args:
        noise: called once for x_T, then once for every step that adds noise.
        timesteps: the walk, descending, where it is not the one that params space.

    Raises:
        ValueError: params.steps exceeds the schedule's timesteps.
    """
    walk = timesteps or spaced_timesteps(schedule, params.steps, params.spacing)
    alpha_bars: list[float] = schedule.alphas_cumprod.tolist()
    x_t = noise()
    before: tuple[float, Tensor] | None = None  # alpha_bar and the estimate of the step before
    for t, t_prev in zip(walk, [*walk[1:], None], strict=True):
        alpha_bar = alpha_bars[t]
        alpha_bar_prev = 1.0 if t_prev is None else alpha_bars[t_prev]
        pred_noise = predict_noise(x_t, t)
        pred_x_start = (x_t - math.sqrt(1 - alpha_bar) * pred_noise) / math.sqrt(alpha_bar)
        if params.clip:
            pred_x_start = pred_x_start.clamp(-1, 1)
        target = pred_x_start
        if params.sampler == "dpmpp_2m" and before and t_prev is not None:
            target = _half_way(before, (alpha_bar, pred_x_start), alpha_bar_prev)
        before = alpha_bar, pred_x_start
        if params.clip or params.sampler == "dpmpp_2m":
            pred_noise = (x_t - math.sqrt(alpha_bar) * target) / math.sqrt(1 - alpha_bar)
        mean_variance, noise_variance = _variances(params, alpha_bar, alpha_bar_prev)
        rest = max(1 - alpha_bar_prev - mean_variance, 0)  # rounding may leave less than nothing
        x_prev = math.sqrt(alpha_bar_prev) * target + math.sqrt(rest) * pred_noise
        if t_prev is not None and noise_variance > 0:
            x_prev = x_prev + math.sqrt(noise_variance) * noise()
        yield Step(t, x_prev, pred_x_start)
        x_t = x_prev


def _half_way(before: tuple[float, Tensor], now: tuple[float, Tensor], alpha_bar_prev: float) -> Tensor:
    """The estimate of x_0 in the middle of the step to alpha_bar_prev, on the line through the last two.

    The line runs over the log signal-to-noise ratio; `before` and `now` are the cumulative product of the alphas and
    the estimate there.
    """
    log_snr_before, log_snr, log_snr_prev = map(_log_snr, (before[0], now[0], alpha_bar_prev))
    reach = (log_snr_prev - log_snr) / 2 / (log_snr - log_snr_before)
    return now[1] + reach * (now[1] - before[1])


def _log_snr(alpha_bar: float) -> float:
    return math.log(alpha_bar / (1 - alpha_bar))


def _variances(params: SamplerParams, alpha_bar: float, alpha_bar_prev: float) -> tuple[float, float]:
    """s^2 as it enters the mean, and the variance of the noise that is added."""
    beta = 1 - alpha_bar / alpha_bar_prev
    posterior = beta * (1 - alpha_bar_prev) / (1 - alpha_bar)
    if params.sampler == "ddpm":
        return posterior, posterior if params.variance == "posterior" else beta
    return params.eta**2 * posterior, params.eta**2 * posterior
