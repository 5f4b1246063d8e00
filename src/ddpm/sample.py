"""Sampling: algorithm 2 of Ho et al. 2020 (arXiv:2006.11239), with a choice of the reverse step, and guidance.

In the end, levels that real images hardly take become 0 (`training.run.faint_levels`).
ddpm is the ancestral sampler of that paper. ddim generalises it (Song et al. 2021, arXiv:2010.02502). dpmpp_2m is the
second-order multistep DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), of the ODE with eta 0, of the SDE with eta 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.compute.device import Runtime, start, to_device
from ddpm.compute.randomness import ImageNoise
from ddpm.images.splits import Split, to_uint8
from ddpm.model import LoadedModel
from ddpm.sampling.params import SamplerParams, fitted, sample_batch_size, sample_labels
from ddpm.schedule import NoiseSchedule, posterior, renewed_share
from ddpm.unet import NO_LABEL, UNet
from exact_stages.console import UserError, progress
from exact_stages.params import parse

BAR: dict[str, Any] = {"unit": "eval", "unit_scale": True}
Denoise = Callable[[Tensor, int], Tensor]  # (x_t of (B, C, H, W), t) -> the estimate of x_0, like x_t
Noise = Callable[[], Tensor]  # returns new standard normal noise, shaped like x_t


class Step(NamedTuple):
    """One step of the reverse process: its t, the new `x_prev`, and the estimate of x_0."""

    t: int
    x_prev: Tensor
    pred_x_start: Tensor


def p_sample_loop(
    denoise: Denoise, schedule: NoiseSchedule, params: SamplerParams, noise: Noise, timesteps: Sequence[int]
) -> Iterator[Step]:
    """Run the reverse process (Ho et al. 2020, algorithm 2) over descending timesteps; yield a `Step` for each.

    `denoise` is called once in a step; `noise` once for x_T, then once in every step that adds noise.
    """
    alphas_cumprod: list[float] = schedule.alphas_cumprod.tolist()
    x_t = noise()  # line 1: x_T ~ N(0, I)
    before: tuple[float, Tensor] | None = None
    for t, t_prev in zip(timesteps, [*timesteps[1:], None], strict=True):  # line 2
        pred_x_start = denoise(x_t, t)  # x_0 from eps_theta(x_t, t) (eq. 15)
        if params.clip:
            pred_x_start = pred_x_start.clamp(-1, 1)
        abar, abar_prev = alphas_cumprod[t], 1.0 if t_prev is None else alphas_cumprod[t_prev]
        target = pred_x_start
        if params.sampler == "dpmpp_2m":
            target = extrapolated(pred_x_start, abar, abar_prev, before)
            before = log_snr_of(abar), pred_x_start
        x_prev, variance = p_sample(params, x_t, target, abar, abar_prev)  # line 4: mean and sigma_t^2
        if t_prev is not None and variance > 0:  # line 3: z = 0 in the last step
            x_prev = x_prev + math.sqrt(variance) * noise()  # line 4: + sigma_t z
        yield Step(t, x_prev, pred_x_start)
        x_t = x_prev


def p_sample(
    params: SamplerParams, x_t: Tensor, x_start: Tensor, abar: float, abar_prev: float
) -> tuple[Tensor, float]:
    """Return the mean of x_prev, and the variance of the noise to add; abar is alphas_cumprod.

    ddpm: the posterior q(x_prev | x_t, x_0) (Ho et al. 2020, eq. 7), or its mean with the variance beta (section 3.2).
    Without clipping this mean is line 4 of the algorithm, (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t)
    (eq. 11).

    ddim: deterministic with eta 0, the posterior with eta 1 (Song et al. 2021, eqs. 12 and 16).

    dpmpp_2m: the same, but new noise is 1 - exp(-2 eta h), where h is half the step's rise of log SNR, as in
    k-diffusion.
    """
    share = renewed_share(abar, abar_prev)
    if params.sampler == "ddim":
        share = params.eta**2 * share
    elif params.sampler == "dpmpp_2m":
        share = 1 - (1 - share) ** params.eta
    coef1, coef2, variance = posterior(abar, abar_prev, share)
    if params.sampler == "ddpm" and params.variance == "beta":
        variance = 1 - abar / abar_prev
    return coef1 * x_start + coef2 * x_t, variance


def extrapolated(pred_x_start: Tensor, abar: float, abar_prev: float, before: tuple[float, Tensor] | None) -> Tensor:
    """Return x_0 extrapolated from the last two estimates (DPM-Solver++(2M): Lu et al. 2022, algorithm 2).

    The extrapolation is linear in log SNR, to the middle of the step. In the first and the last step there is none.
    `before` has log SNR and estimate of the step before.
    """
    if not before or abar_prev == 1:
        return pred_x_start
    now = log_snr_of(abar)
    reach = (log_snr_of(abar_prev) - now) / 2 / (now - before[0])
    return pred_x_start + reach * (pred_x_start - before[1])


def log_snr_of(abar: float) -> float:
    """Return the log signal-to-noise ratio, log(abar / (1 - abar))."""
    return math.log(abar / (1 - abar))


def visited(loaded: LoadedModel, params: SamplerParams) -> Sequence[int]:
    """Return the timesteps at which a model is evaluated, descending."""
    return loaded.card.timesteps or spaced_timesteps(loaded.schedule, params.steps, params.spacing)


def spaced_timesteps(schedule: NoiseSchedule, steps: int | None, spacing: str | None) -> list[int]:
    """Choose `steps` of the T timesteps, at most all, descending; None takes all T.

    trailing: equal steps down from T-1.
    log_snr: equal steps of the log SNR, from T-1 to 0.
    """
    timesteps = schedule.timesteps
    if steps is None:
        return [*reversed(range(timesteps))]
    assert spacing, "fit the params first"
    if spacing == "trailing":
        return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]
    log_snr = schedule.alphas_cumprod.logit()
    grid = torch.linspace(float(log_snr[-1]), float(log_snr[0]), steps, dtype=log_snr.dtype)
    found, free = [], timesteps - 1
    for left, wanted in zip(reversed(range(steps)), grid, strict=True):
        nearest = int((log_snr - wanted).abs().argmin())
        found.append(max(min(nearest, free), left))  # each once; later steps still need `left` timesteps below
        free = found[-1] - 1
    return found


def guided_denoiser(loaded: LoadedModel, labels: Tensor, params: SamplerParams, runtime: Runtime) -> Denoise:
    """Return the function that a sampler calls: the model with the labels (B,), guided as the params say.

    Infinite estimates become NaN: clipping would turn them into black or white pixels.
    """
    labels, nan = labels.to(runtime.device), math.nan

    def bound(network: UNet, labels: Tensor) -> Denoise:
        denoiser = loaded.denoiser(runtime, network)
        return lambda x_t, t: denoiser(x_t, torch.full_like(labels, t), labels).x_start.nan_to_num(nan, nan, nan)

    denoise = bound(loaded.network, labels)
    if params.guidance == 1:
        return denoise
    assert params.guidance is not None, "fit the params first"
    if params.guide == "autoguidance":
        assert loaded.guide
        guide = bound(loaded.guide, labels)
    else:
        guide = bound(loaded.network, torch.full_like(labels, NO_LABEL))
    return guided(denoise, guide, loaded.schedule, params.guidance, params.guidance_interval)


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


@torch.inference_mode()
def sample_batch(
    loaded: LoadedModel, params: SamplerParams, seed: int, indices: Sequence[int], runtime: Runtime
) -> Iterator[Step]:
    """Sample the images `indices`, and yield the steps of the reverse process.

    Image i depends on (seed, i), not on the batch. The last `x_prev` is the images, `sample_labels` returns the labels.

    Raises:
        UserError: after the last step, an image is not finite.
    """
    noise = ImageNoise(seed, indices, loaded.card.data.shape, runtime.device)
    labels = sample_labels(loaded.card, params, seed, indices)
    denoise = guided_denoiser(loaded, labels, params, runtime)
    timesteps = visited(loaded, params)
    for step in p_sample_loop(denoise, loaded.schedule, params, noise, timesteps):
        if step.t == timesteps[-1] and (faint := loaded.card.faint):  # an estimate of such a level is a 0
            step = step._replace(x_prev=step.x_prev.masked_fill(step.x_prev < (faint + 0.5) / 127.5 - 1, -1))
        yield step
    if not (finite := step.x_prev.isfinite().flatten(1).all(1)).all():  # only here: it synchronises
        image = indices[int(finite.int().argmin())]
        raise UserError(f"image {image}: the model's predictions are not finite; fetch the model again, or retrain it")


def sample(loaded: LoadedModel, count: int, seed: int = 0, **params: Any) -> Split:
    """Sample images, uint8 (count, C, H, W), and their labels, (count,), on the fastest device of the machine.

    A CPU computes in this process, with one thread; the caller's number of threads is restored. All labels of a model
    that is not class-conditional are NO_LABEL.

    Args:
        loaded: from `load_model` or `load_pretrained`.
        params: fields of `SamplerParams`; the others have its defaults, a distilled model its own.

    Raises:
        UserError: params are wrong, or do not fit the model; the message names the param.
    """
    if count < 1:
        raise UserError(f"count: {count}; set 1 or more")
    threads, images = torch.get_num_threads(), []
    runtime = start(alone=True)
    try:
        for network in filter(None, (loaded.network, loaded.guide)):
            to_device(network, runtime.device)
        chosen = fitted(parse(SamplerParams, params, "sample"), loaded.card)
        size = sample_batch_size(loaded.card, runtime)
        with progress(desc="sample", total=len(visited(loaded, chosen)) * count, **BAR) as bar:
            for batch in (range(count)[first : first + size] for first in range(0, count, size)):
                for step in sample_batch(loaded, chosen, seed, batch, runtime):
                    bar.update(len(batch))
                images.append(to_uint8(step.x_prev).cpu())
    finally:
        torch.set_num_threads(threads)
    return Split(torch.cat(images), sample_labels(loaded.card, chosen, seed, range(count)))
