"""The samplers: algorithm 2 of Ho et al. 2020 (arXiv:2006.11239), with a choice of the reverse step.

    1  x_T ~ N(0, I)                    p_sample_loop
    2  for t = T, ..., 1                p_sample_loop, over the timesteps of spaced_timesteps
    3    z ~ N(0, I), 0 in the last     p_sample_loop
    4    x_{t-1} = mean + sigma_t z     Sampler.p_sample returns the mean (eqs. 7 and 11) and sigma_t^2
    6  return x_0                       x_prev of the last Step

DDPM is the ancestral sampler of that paper. DDIM generalises it (Song et al. 2021, arXiv:2010.02502). DPMpp2M is the
second-order multistep DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095). With eta 0 it solves the ordinary differential
equation, with eta 1 the stochastic one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule, posterior, renewed_share
from ddpm.images.card import Classes
from ddpm.networks.checkpoint import Guide, ModelCard
from ddpm.sampling.guidance import CLASSIFIER_FREE_SCALE, Denoise, autoguidance_scale
from exact_stages.params import Section

LogSNR = Annotated[float, Field(ge=-100, le=100)]
Noise = Callable[[], Tensor]  # returns new standard normal noise, shaped like x_t


class SamplerParams(Section):
    """Sampler, timesteps, guidance and classes; params.yaml explains each choice."""

    sampler: Literal["ddpm", "ddim", "dpmpp_2m"]
    steps: Annotated[int, Field(ge=1, le=100_000)] | None
    spacing: Literal["trailing", "cubic", "log_snr"] | None
    variance: Literal["posterior", "beta"]
    eta: Annotated[float, Field(ge=0, le=1)]
    clip: bool
    guidance: Annotated[float, Field(ge=0, le=1000)] | None
    guide: Guide
    guidance_interval: tuple[LogSNR, LogSNR]
    classes: Classes

    @field_validator("guidance_interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError("must be from, to in ascending order")
        return interval

    @property
    def needs_guide(self) -> bool:
        """Tell whether the params ask for guidance; an unset scale of autoguidance is 1 for a model without guide."""
        return self.guidance != 1 and (self.guidance is not None or self.guide != "autoguidance")

    def chosen(self, card: ModelCard) -> dict[str, str | float]:
        """Return suitable values of unset params: the spacing for grey or colour images, the scale of guidance.

        With all timesteps there is nothing to space.
        """
        scale = CLASSIFIER_FREE_SCALE if self.guide == "classifier_free" else autoguidance_scale(card.images_seen)
        suitable: dict[str, str | float] = {"guidance": scale if self.guide in card.guides else 1.0}
        if self.steps is not None:
            suitable["spacing"] = "cubic" if card.data.shape[0] == 1 else "log_snr"
        return {key: value for key, value in suitable.items() if getattr(self, key) is None}

    def for_model(self, card: ModelCard) -> "SamplerParams":
        """Return these params with the unset ones chosen."""
        return self.model_copy(update=self.chosen(card))


class Step(NamedTuple):
    """One step of the reverse process: its t, the new `x_prev`, and the estimate of x_0."""

    t: int
    x_prev: Tensor
    pred_x_start: Tensor


def spaced_timesteps(schedule: NoiseSchedule, steps: int | None, spacing: str | None) -> list[int]:
    """Choose `steps` of the T timesteps, descending; None takes all T.

    trailing, or None: equal steps down from T-1.
    log_snr: equal steps of the log SNR, from T-1 to 0.
    cubic: shrinking steps from T-1 to 0, the cubes of equal steps; Song et al. 2021, appendix D.2, take squares.
    log_snr and cubic take the nearest timestep that is free.

    Raises:
        ValueError: steps > timesteps.
    """
    timesteps = schedule.timesteps
    steps = steps or timesteps
    if steps > timesteps:
        raise ValueError(f"steps: {steps}, but the model has only {timesteps} timesteps; lower it")
    match spacing:
        case "trailing" | None:
            return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]
        case "cubic":
            roots = torch.linspace((timesteps - 1) ** (1 / 3), 0, steps, dtype=torch.float64)
            return _each_once((roots**3).round().int().tolist(), timesteps)
        case _:
            log_snr = schedule.alphas_cumprod.logit()
            grid = torch.linspace(float(log_snr[-1]), float(log_snr[0]), steps, dtype=log_snr.dtype)
            return _each_once([int((log_snr - wanted).abs().argmin()) for wanted in grid], timesteps)


def _each_once(wanted: Sequence[int], timesteps: int) -> list[int]:
    """Return the wanted timesteps of 0..timesteps-1, descending; move repeated ones to the next free timestep."""
    found, free = [], timesteps - 1
    for left, nearest in zip(reversed(range(len(wanted))), wanted, strict=True):
        found.append(max(min(nearest, free), left))  # later steps still need `left` timesteps below
        free = found[-1] - 1
    return found


def p_sample_loop(
    denoise: Denoise,
    schedule: NoiseSchedule,
    params: SamplerParams,
    noise: Noise,
    timesteps: Sequence[int] = (),
) -> Iterator[Step]:
    """Run the reverse process (Ho et al. 2020, algorithm 2), and yield a `Step` for each call of `denoise`.

    Args:
        noise: called once for x_T, then once for every step that adds noise.
        timesteps: the timesteps to visit, descending; by default from `spaced_timesteps`.

    Raises:
        ValueError: params.steps exceeds the schedule's timesteps.
    """
    visited = timesteps or spaced_timesteps(schedule, params.steps, params.spacing)
    alphas_cumprod: list[float] = schedule.alphas_cumprod.tolist()
    sampler = SAMPLERS[params.sampler](params)
    x_t = noise()  # line 1: x_T ~ N(0, I)
    for t, t_prev in zip(visited, [*visited[1:], None], strict=True):  # line 2
        pred_x_start = denoise(x_t, t)  # x_0 from eps_theta(x_t, t) (eq. 15)
        if params.clip:
            pred_x_start = pred_x_start.clamp(-1, 1)
        abar, abar_prev = alphas_cumprod[t], 1.0 if t_prev is None else alphas_cumprod[t_prev]
        x_prev, variance = sampler.p_sample(x_t, pred_x_start, abar, abar_prev)  # line 4: mean and sigma_t^2
        if t_prev is not None and variance > 0:  # line 3: z = 0 in the last step
            x_prev = x_prev + math.sqrt(variance) * noise()  # line 4: + sigma_t z
        yield Step(t, x_prev, pred_x_start)
        x_t = x_prev


class Sampler(Protocol):
    """A rule for one reverse step."""

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Return the mean of x_prev and the variance of the noise to add; abar is alphas_cumprod."""


class DDPM:
    """Ancestral sampling (Ho et al. 2020, algorithm 2); sigma_t^2 is the posterior variance or beta (section 3.2)."""

    def __init__(self, params: SamplerParams) -> None:
        self.variance = params.variance

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Return the mean of q(x_prev | x_t, x_0) (eq. 7), and sigma_t^2.

        Without clipping this mean is line 4 of the algorithm, (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t)
        (eq. 11).
        """
        coef1, coef2, variance = posterior(abar, abar_prev)
        mean = coef1 * pred_x_start + coef2 * x_t
        return mean, variance if self.variance == "posterior" else 1 - abar / abar_prev


class DDIM:
    """Denoising diffusion implicit model (Song et al. 2021, eq. 12): deterministic with eta 0, ancestral with 1."""

    def __init__(self, params: SamplerParams) -> None:
        self.eta = params.eta

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Return the mean (eq. 12), and the variance."""
        coef1, coef2, variance = posterior(abar, abar_prev, self.renewed(renewed_share(abar, abar_prev)))
        return coef1 * pred_x_start + coef2 * x_t, variance

    def renewed(self, share: float) -> float:
        """Return the share of new noise from that of the posterior: the variance is eta^2 times as large (eq. 16)."""
        return self.eta**2 * share


class DPMpp2M(DDIM):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): DDIM with an x_0 extrapolated from the last two estimates.

    The extrapolation is linear in log SNR, to the middle of the step. The first and the last step are plain DDIM.
    """

    def __init__(self, params: SamplerParams) -> None:
        super().__init__(params)
        self.before: tuple[float, Tensor] | None = None  # log SNR and estimate of the step before

    def p_sample(self, x_t: Tensor, pred_x_start: Tensor, abar: float, abar_prev: float) -> tuple[Tensor, float]:
        """Extrapolate x_0, then take the step of DDIM."""
        now, target = log_snr_of(abar), pred_x_start
        if self.before and abar_prev < 1:
            reach = (log_snr_of(abar_prev) - now) / 2 / (now - self.before[0])
            target = pred_x_start + reach * (pred_x_start - self.before[1])
        self.before = now, pred_x_start
        return super().p_sample(x_t, target, abar, abar_prev)

    def renewed(self, share: float) -> float:
        """Return 1 - exp(-2 eta h), where h is half the step's rise of log SNR, as in k-diffusion."""
        return 1 - (1 - share) ** self.eta


SAMPLERS: dict[str, Callable[[SamplerParams], Sampler]] = {"ddpm": DDPM, "ddim": DDIM, "dpmpp_2m": DPMpp2M}


def log_snr_of(abar: float) -> float:
    """Return the log signal-to-noise ratio, log(abar / (1 - abar))."""
    return math.log(abar / (1 - abar))
