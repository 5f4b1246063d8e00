"""The variational bound on the negative log-likelihood, in bits per dimension (Ho et al. 2020, eq. 5).

The bound is the sum of the prior term L_T, of L_t for t = 1..T-1, and of the decoder term L_0. The paper counts t from
1, and writes L_{t-1}. The reverse process is ancestral, with the posterior variance and a clipped estimate of x_0.
The terms are computed on the CPU in float64.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .schedule import NoiseSchedule

PIXEL_STEPS = 255  # intervals between the values of a pixel, in 0..255 or -1..1
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t of (B, C, H, W), t of (B,)) -> the estimate of x_0, like x_t


class Bound(NamedTuple):
    """The bound of each image and its three parts, each (B,), float64, in bits per dimension."""

    total: Tensor
    prior: Tensor
    steps: Tensor
    decoder: Tensor


def variational_bound(
    denoise: Denoise, schedule: NoiseSchedule, x_start: Tensor, terms: int, generators: Sequence[torch.Generator]
) -> Bound:
    """Estimate the bound of images (B, C, H, W) without bias; pixels have 256 values in [-1, 1].

    Args:
        terms: how many of L_1..L_{T-1} are evaluated for each image, one from each of `ranges`.
        generators: one for each image, for its timesteps and noise.
    """
    steps = torch.zeros(len(x_start), dtype=torch.float64)
    for part in ranges(schedule, terms):
        place = torch.cat([torch.rand(1, generator=each, dtype=torch.float64) for each in generators])
        t = part.start + (place * len(part)).long().clamp(max=len(part) - 1)
        steps += len(part) * step_term(denoise, schedule, x_start, t, _normal(x_start, generators))
    prior = prior_term(schedule, x_start)
    decoder = decoder_term(denoise, schedule, x_start, _normal(x_start, generators))
    return Bound(prior + steps + decoder, prior, steps, decoder)


def ranges(schedule: NoiseSchedule, count: int) -> list[range]:
    """Split 1..T-1 into `count` ranges, over which the log SNR falls alike, as far as whole timesteps allow.

    A term is half the fall of the SNR times the error of the estimate (Kingma et al. 2021, arXiv:2107.00630, eq. 12).
    So the terms of faint noise are much larger than the others, and differ more between timesteps.
    """
    log_snr = schedule.alphas_cumprod.logit()
    fall = log_snr[0] - log_snr
    found, end = [], 1
    for number in range(1, count + 1):
        start, after = end, count - number  # each later range needs a timestep
        wanted = int(torch.searchsorted(fall, fall[-1] * number / count)) + 1
        end = min(max(wanted, start + 1), schedule.timesteps - after)
        found.append(range(start, end))
    return found


def prior_term(schedule: NoiseSchedule, x_start: Tensor) -> Tensor:
    """Return L_T of each image, (B,): the KL divergence of q(x_T | x_0) from N(0, I)."""
    signal = float(schedule.alphas_cumprod[-1])
    nats = 0.5 * (signal * x_start.double().square() - signal - math.log1p(-signal))
    return _bits(nats)


def step_term(denoise: Denoise, schedule: NoiseSchedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Return L_t at t >= 1, (B,): the KL divergence of q(x_{t-1} | x_t, x_0) from p(x_{t-1} | x_t) (eq. 8).

    Both have the same variance, so it is the squared difference of their means over twice the variance.
    """
    pred_x_start = _pred_x_start(denoise, schedule, x_start, t, noise)
    coef1, variance = schedule.posterior_mean_coef1[t], schedule.posterior_variance[t]
    weight = coef1.square() / (2 * variance)
    return _bits(weight.view(-1, 1, 1, 1) * (x_start.double() - pred_x_start.double()).square())


def decoder_term(denoise: Denoise, schedule: NoiseSchedule, x_start: Tensor, noise: Tensor) -> Tensor:
    """Return L_0, (B,): -log p(x_0 | x_1), a Gaussian integrated over the bin of each pixel's value (eq. 13).

    The posterior variance is 0 at t = 0. The variance at t = 1 replaces it, as in the paper's code.
    """
    t = torch.zeros(len(x_start), dtype=torch.long)
    mean = _pred_x_start(denoise, schedule, x_start, t, noise).double()
    variance = schedule.posterior_variance[1] if schedule.timesteps > 1 else schedule.betas[0]
    return _bits(-discretised_log_likelihood(x_start.double(), mean, float(variance) ** 0.5))


def discretised_log_likelihood(x_start: Tensor, mean: Tensor, deviation: float) -> Tensor:
    """Return the log of N(mean, deviation^2) integrated over each value's bin, in nats; outer bins are unbounded."""
    upper = torch.where(x_start > 1 - 1 / PIXEL_STEPS, torch.inf, (x_start - mean + 1 / PIXEL_STEPS) / deviation)
    lower = torch.where(x_start < -1 + 1 / PIXEL_STEPS, -torch.inf, (x_start - mean - 1 / PIXEL_STEPS) / deviation)
    # In the upper tail both integrals round to 1, so mirror it.
    mirror = lower > 0
    lower, upper = torch.where(mirror, -upper, lower), torch.where(mirror, -lower, upper)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return log_upper + torch.log1p(-(log_lower - log_upper).exp())


def _pred_x_start(denoise: Denoise, schedule: NoiseSchedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Return the clipped estimate of x_0 from one sample of x_t."""
    x_t = schedule.q_sample(x_start, t, noise)
    return denoise(x_t, t).clamp(-1, 1)


def _normal(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(like.shape[1:], generator=each) for each in generators])


def _bits(nats: Tensor) -> Tensor:
    """Return the mean over the dimensions of each image, in bits, (B,)."""
    return nats.flatten(1).mean(1) / math.log(2)
