"""Sampling: algorithm 2 of Ho et al. 2020 (arXiv:2006.11239), with a choice of the reverse step, and guidance.

A sampler is a function of one step, in SAMPLERS. Noise schedule and timesteps are the same for all.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .denoiser import Denoiser, NotFiniteError
from .schedule import NoiseSchedule, posterior, renewed_share

Denoise = Callable[[Tensor, int], Tensor]  # (x_t of (B, C, H, W), t) -> the estimate of x_0, like x_t
Noise = Callable[[], Tensor]  # returns new standard normal noise, shaped like x_t


class Estimate(NamedTuple):
    """An estimate of x_0, and alphas_cumprod at the timestep where it was made."""

    x_start: Tensor
    abar: float


class Step(NamedTuple):
    """One step of the reverse process: its t, the new `x_prev`, and the estimate of x_0."""

    t: int
    x_prev: Tensor
    pred_x_start: Tensor


def p_sample_loop(
    denoise: Denoise,
    schedule: NoiseSchedule,
    noise: Noise,
    timesteps: Sequence[int],
    sampler: str = "ddpm",
    clip: bool = True,
    **options: Any,
) -> Iterator[Step]:
    """Run the reverse process (Ho et al. 2020, algorithm 2) over descending timesteps; yield a `Step` for each.

    `denoise` is called once in a step; `noise`, such as an `ImageNoise`, once for x_T, then once in every step that
    adds noise. Call this under `torch.no_grad()`.

    Args:
        clip: whether to clip the estimates of x_0 to [-1, 1].
        options: of the sampler, such as eta; one that it does not know is left out.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler: {sampler}; choose from {', '.join(SAMPLERS)}")
    step, alphas_cumprod = SAMPLERS[sampler], schedule.alphas_cumprod.tolist()
    x_t, before = noise(), None  # line 1: x_T ~ N(0, I)
    for t, t_prev in zip(timesteps, [*timesteps[1:], None], strict=True):  # line 2
        pred_x_start = denoise(x_t, t)  # x_0 from eps_theta(x_t, t) (eq. 15)
        if clip:
            pred_x_start = pred_x_start.clamp(-1, 1)
        now = Estimate(pred_x_start, alphas_cumprod[t])
        abar_prev = 1.0 if t_prev is None else alphas_cumprod[t_prev]
        x_t, variance = step(x_t, now, before, abar_prev, **options)  # line 4: the mean, and sigma_t^2
        if t_prev is not None and variance > 0:  # line 3: z = 0 in the last step
            x_t = x_t + math.sqrt(variance) * noise()  # line 4: + sigma_t z
        yield Step(t, x_t, pred_x_start)
        before = now


def ddpm(
    x_t: Tensor, now: Estimate, before: Estimate | None, abar_prev: float, variance: str = "posterior", **_: Any
) -> tuple[Tensor, float]:
    """Take the ancestral step: the posterior q(x_prev | x_t, x_0) (Ho et al. 2020, eq. 7).

    Without clipping its mean is line 4 of the algorithm, (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t)
    (eq. 11). With the variance "beta", the noise is that of the forward step (section 3.2).
    """
    coef1, coef2, least = posterior(now.abar, abar_prev)
    return coef1 * now.x_start + coef2 * x_t, 1 - now.abar / abar_prev if variance == "beta" else least


def ddim(
    x_t: Tensor, now: Estimate, before: Estimate | None, abar_prev: float, eta: float = 1.0, **_: Any
) -> tuple[Tensor, float]:
    """Take the step of Song et al. 2021 (arXiv:2010.02502, eqs. 12 and 16): deterministic with eta 0, ddpm with 1."""
    coef1, coef2, variance = posterior(now.abar, abar_prev, eta**2 * renewed_share(now.abar, abar_prev))
    return coef1 * now.x_start + coef2 * x_t, variance


def dpmpp_2m(
    x_t: Tensor, now: Estimate, before: Estimate | None, abar_prev: float, eta: float = 1.0, **_: Any
) -> tuple[Tensor, float]:
    """Take the step of DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095), of the ODE with eta 0, the SDE with 1.

    New noise is 1 - exp(-2 eta h), where h is half the step's rise of log SNR, as in k-diffusion.
    """
    share = 1 - (1 - renewed_share(now.abar, abar_prev)) ** eta
    coef1, coef2, variance = posterior(now.abar, abar_prev, share)
    return coef1 * extrapolated(now, before, abar_prev) + coef2 * x_t, variance


# A sampler takes x_t, the estimate now and that of the step before, if any, alphas_cumprod at the end of the step, and
# options. It returns the mean of x_prev, and the variance of the noise to add.
SAMPLERS: dict[str, Callable[..., tuple[Tensor, float]]] = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m}


def extrapolated(now: Estimate, before: Estimate | None, abar_prev: float) -> Tensor:
    """Return x_0 extrapolated from the last two estimates (DPM-Solver++(2M): Lu et al. 2022, algorithm 2).

    The extrapolation is linear in log SNR, to the middle of the step. In the first and the last step there is none.
    """
    if not before or abar_prev == 1:
        return now.x_start
    end, middle, start = map(log_snr_of, (abar_prev, now.abar, before.abar))
    reach = (end - middle) / 2 / (middle - start)
    return now.x_start + reach * (now.x_start - before.x_start)


def log_snr_of(abar: float) -> float:
    """Return the log signal-to-noise ratio, log(abar / (1 - abar))."""
    return math.log(abar / (1 - abar))


def spaced_timesteps(schedule: NoiseSchedule, steps: int | None) -> list[int]:
    """Choose `steps` of the T timesteps, at most all, descending, by equal steps of the log SNR; None takes all T.

    The last one is 0, since noise that is left there becomes specks (studies/samplers).
    """
    timesteps = schedule.timesteps
    if steps is None:
        return [*reversed(range(timesteps))]
    log_snr = schedule.alphas_cumprod.logit()
    grid = torch.linspace(float(log_snr[-1]), float(log_snr[0]), steps, dtype=log_snr.dtype)
    found, free = [], timesteps - 1
    for left, wanted in zip(reversed(range(steps)), grid, strict=True):
        nearest = int((log_snr - wanted).abs().argmin())
        found.append(max(min(nearest, free), left))  # each once; later steps still need `left` timesteps below
        free = found[-1] - 1
    return found


def denoise_by(denoiser: Denoiser, labels: Tensor) -> Denoise:
    """Return the function that a sampler calls: the denoiser with the labels, (B,); its network in evaluation mode.

    Infinite estimates become NaN: clipping would turn them into black or white pixels.
    """
    nan = math.nan
    return lambda x_t, t: denoiser(x_t, torch.full_like(labels, t), labels).x_start.nan_to_num(nan, nan, nan)


def guided(
    denoise: Denoise, guide: Denoise, schedule: NoiseSchedule, scale: float, interval: tuple[float, float]
) -> Denoise:
    """Guide a model by a worse one: D_guide + scale (D - D_guide), where log SNR is in the interval (arXiv:2404.07724).

    Classifier-free guidance: the guide is the same model without the class (Ho and Salimans 2022, arXiv:2207.12598).
    Autoguidance: the guide is the model from early in its training (Karras et al. 2024, arXiv:2406.02507).
    """
    log_snr = schedule.alphas_cumprod.logit().tolist()

    def denoise_guided(x_t: Tensor, t: int) -> Tensor:
        pred_x_start = denoise(x_t, t)
        if not interval[0] <= log_snr[t] <= interval[1]:
            return pred_x_start
        guide_x_start = guide(x_t, t)
        return guide_x_start + scale * (pred_x_start - guide_x_start)

    return denoise_guided


def check_finite(images: Tensor, numbers: Sequence[int]) -> None:
    """Check images (B, C, H, W) with these numbers; this synchronises with a GPU.

    Raises:
        NotFiniteError: an image is not finite; the message names the first.
    """
    if not (finite := images.isfinite().flatten(1).all(1)).all():
        raise NotFiniteError(f"image {numbers[int(finite.int().argmin())]}: the predictions are not finite")
