"""The reverse process: from pure noise to images. Every sampler is a generator of its steps.

`ddpm` is the ancestral process of Ho et al. 2020 (arXiv:2006.11239), `ddim` the generalised one of Song et al. 2021
(arXiv:2010.02502), `dpmpp_2m` the second-order multistep solver of Lu et al. 2022 (DPM-Solver++, arXiv:2211.01095), of
the ordinary differential equation with eta 0, of the stochastic one with eta 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.images.card import Classes
from ddpm.networks.checkpoint import Guide
from ddpm.pipeline.params import Section
from ddpm.sampling.guidance import Denoise

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


def p_sample_loop(
    denoise: Denoise,
    schedule: NoiseSchedule,
    params: SamplerParams,
    noise: Noise,
    timesteps: Sequence[int] = (),
) -> Iterator[Step]:
    """Run the reverse process from x_T ~ N(0, I) (Ho et al. 2020, algorithm 2), one `Step` for each call of `denoise`.

    Args:
        noise: called once for x_T, then once for every step that adds noise.
        timesteps: those to visit, descending, where they are not the ones that params space.

    Raises:
        ValueError: params.steps exceeds the schedule's timesteps.
    """
    visited = timesteps or spaced_timesteps(schedule, params.steps, params.spacing)
    alphas_cumprod: list[float] = schedule.alphas_cumprod.tolist()
    sampler = SAMPLERS[params.sampler](params)
    x_t = noise()
    for t, t_prev in zip(visited, [*visited[1:], None], strict=True):
        pred_x_start = denoise(x_t, t)
        if params.clip:
            pred_x_start = pred_x_start.clamp(-1, 1)
        abar, abar_prev = alphas_cumprod[t], 1.0 if t_prev is None else alphas_cumprod[t_prev]
        x_prev, variance = sampler.p_sample(x_t, pred_x_start, abar, abar_prev)
        if t_prev is not None and variance > 0:
            x_prev = x_prev + math.sqrt(variance) * noise()
        yield Step(t, x_prev, pred_x_start)
        x_t = x_prev


class Sampler(Protocol):
    """One reverse step."""

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Return the mean of x_prev and the variance of the noise to add; abar is alphas_cumprod."""


class DDPM:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), with the posterior variance or beta (section 3.2)."""

    def __init__(self, params: SamplerParams) -> None:
        self.variance = params.variance

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Take the mean of q(x_prev | x_t, x_0) (eq. 7)."""
        posterior = posterior_variance(abar, abar_prev)
        mean = mean_of_x_prev(x_t, pred_x_start, abar, abar_prev, posterior)
        return mean, posterior if self.variance == "posterior" else 1 - abar / abar_prev


class DDIM:
    """Denoising diffusion implicit model (Song et al. 2021, eq. 12): with eta 0 deterministic, with 1 ancestral."""

    def __init__(self, params: SamplerParams) -> None:
        self.eta = params.eta

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Take eta^2 times the posterior variance, in the mean and as noise (eq. 16)."""
        variance = self.eta**2 * posterior_variance(abar, abar_prev)
        return mean_of_x_prev(x_t, pred_x_start, abar, abar_prev, variance), variance


class DPMpp2M(DDIM):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): DDIM with an x_0 extrapolated from the last two estimates.

    The line through them runs over log SNR, to the middle of the step. The first step and the last are DDIM's.
    """

    def __init__(self, params: SamplerParams) -> None:
        super().__init__(params)
        self.before: tuple[float, Tensor] | None = None  # log SNR and estimate of the step before

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Extrapolate, then step as DDIM."""
        now, target = log_snr_of(abar), pred_x_start
        if self.before and abar_prev < 1:
            reach = (log_snr_of(abar_prev) - now) / 2 / (now - self.before[0])
            target = pred_x_start + reach * (pred_x_start - self.before[1])
        self.before = now, pred_x_start
        return super().p_sample(x_t, target, abar, abar_prev)


SAMPLERS: dict[str, Callable[[SamplerParams], Sampler]] = {"ddpm": DDPM, "ddim": DDIM, "dpmpp_2m": DPMpp2M}


def mean_of_x_prev(x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float, variance: float) -> Tensor:
    """Return sqrt(abar') x_0 + sqrt(1 - abar' - variance) eps, eps being implied by x_0 (Song et al., eq. 12).

    With the posterior variance it is the mean of q(x_prev | x_t, x_0) (Ho et al. 2020, eq. 7).
    """
    pred_noise = (x_t - math.sqrt(abar) * pred_x_start) / math.sqrt(1 - abar)
    rest = max(1 - abar_prev - variance, 0)  # rounding may leave less than nothing
    return math.sqrt(abar_prev) * pred_x_start + math.sqrt(rest) * pred_noise


def posterior_variance(abar: float, abar_prev: float) -> float:
    """Return the variance of q(x_prev | x_t, x_0), for a step of any length (Ho et al. 2020, eq. 7)."""
    return (1 - abar / abar_prev) * (1 - abar_prev) / (1 - abar)


def log_snr_of(abar: float) -> float:
    """Return the log signal-to-noise ratio, log(abar / (1 - abar))."""
    return math.log(abar / (1 - abar))
