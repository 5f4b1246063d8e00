"""The variational bound on the negative log-likelihood, in bits per dimension (Ho et al. 2020, eq. 5).

The bound is the sum of the prior's term L_T, of L_t for t = 1..T-1, and of the decoder's term L_0 (the paper counts t
from 1, and writes L_{t-1}). The reverse process is the ancestral one with the posterior variance, and clips its
estimate of x_0. All but the network is computed on the CPU, the terms in float64.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

LEVELS = 255  # steps between the values of a pixel, 0..255 or -1..1
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t of (B, C, H, W), t of (B,)) -> the estimate of x_0, like x_t


class Bound(NamedTuple):
    """The bound of each image and its three parts, each of shape (B,), float64, bits per dimension."""

    total: Tensor
    prior: Tensor
    steps: Tensor
    decoder: Tensor


def variational_bound(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x_start: Tensor,
    terms: int,
    generators: Sequence[torch.Generator],
) -> Bound:
    """An unbiased estimate of the bound of images (B, C, H, W), whose 256 values lie in [-1, 1].

    Args:
        terms: how many of L_1..L_{T-1} are evaluated for each image: one at random from each of as many equal ranges of
            t, since neighbouring terms are alike.
        generators: one for each image, of its timesteps and noise.

    Raises:
        ValueError: terms is not in 1..T-1 (0 if T is 1).
    """
    inner = schedule.timesteps - 1
    if not min(1, inner) <= terms <= inner:
        raise ValueError(f"terms is {terms}, but between prior and decoder there are {inner}")
    total = torch.zeros(len(x_start), dtype=torch.float64)
    for stratum in range(terms):
        place = (
            stratum + torch.cat([torch.rand(1, generator=each, dtype=torch.float64) for each in generators])
        ) / terms
        t = 1 + (place * inner).long().clamp(max=inner - 1)
        total += step_term(denoise, schedule, x_start, t, _normal(x_start, generators))
    prior = prior_term(schedule, x_start)
    steps = inner * total / max(terms, 1)
    decoder = decoder_term(denoise, schedule, x_start, _normal(x_start, generators))
    return Bound(prior + steps + decoder, prior, steps, decoder)


def prior_term(schedule: NoiseSchedule, x_start: Tensor) -> Tensor:
    """L_T: how far q(x_T | x_0) is from N(0, I), for each image."""
    signal = float(schedule.alphas_cumprod[-1])
    nats = 0.5 * (signal * x_start.double().square() - signal - math.log1p(-signal))
    return _bits(nats)


def step_term(denoise: Denoise, schedule: NoiseSchedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """L_t at t >= 1, shape (B,): the distance of p(x_{t-1} | x_t) from q(x_{t-1} | x_t, x_0) (eq. 8).

    The two have the same variance, so that it is the squared difference of their means over twice the variance.
    """
    pred_x_start = _pred_x_start(denoise, schedule, x_start, t, noise)
    coef1, variance = schedule.posterior_mean_coef1[t], schedule.posterior_variance[t]
    weight = coef1.square() / (2 * variance)
    return _bits(weight.view(-1, 1, 1, 1) * (x_start.double() - pred_x_start.double()).square())


def decoder_term(denoise: Denoise, schedule: NoiseSchedule, x_start: Tensor, noise: Tensor) -> Tensor:
    """L_0, shape (B,): -log p(x_0 | x_1), a Gaussian integrated over the width of each pixel's value (eq. 13).

    At t = 0 the posterior has no variance; the one of the step before stands in for it, as in the paper's code.
    """
    t = torch.zeros(len(x_start), dtype=torch.long)
    mean = _pred_x_start(denoise, schedule, x_start, t, noise).double()
    variance = schedule.posterior_variance[1] if schedule.timesteps > 1 else schedule.betas[0]
    return _bits(-discretised_log_likelihood(x_start.double(), mean, float(variance) ** 0.5))


def discretised_log_likelihood(x_start: Tensor, mean: Tensor, deviation: float) -> Tensor:
    """log of N(mean, deviation^2) integrated over each value's bin; the outermost bins reach to infinity. In nats."""
    upper = torch.where(x_start > 1 - 1 / LEVELS, torch.inf, (x_start - mean + 1 / LEVELS) / deviation)
    lower = torch.where(x_start < -1 + 1 / LEVELS, -torch.inf, (x_start - mean - 1 / LEVELS) / deviation)
    # In the upper tail both integrals round to 1: mirror it.
    mirror = lower > 0
    lower, upper = torch.where(mirror, -upper, lower), torch.where(mirror, -lower, upper)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return log_upper + torch.log1p(-(log_lower - log_upper).exp())


def _pred_x_start(denoise: Denoise, schedule: NoiseSchedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The clipped estimate of x_0 from one draw of x_t."""
    x_t = schedule.q_sample(x_start, t, noise)
    return denoise(x_t, t).clamp(-1, 1)


def _normal(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(like.shape[1:], generator=each) for each in generators])


def _bits(nats: Tensor) -> Tensor:
    """Mean over the dimensions of each image, in bits."""
    return nats.flatten(1).mean(1) / math.log(2)
