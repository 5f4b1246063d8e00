"""Densities of the timestep t: which noise a training sees how often."""

import math

import torch
from torch import Tensor

from .schedule import NoiseSchedule


def timestep_cdf(schedule: NoiseSchedule, log_snr_center: float | None) -> Tensor:
    """Return the cumulative distribution of t for training, (T,), float64.

    With None, t is uniform; linear betas then spend half of the samples where x_t is almost pure noise. With a center,
    the log SNR lambda has the density sech((lambda - center) / 2) / (2 pi). A center of 0 gives the cosine schedule
    (Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17). For a given loss, only this density distinguishes the noise
    schedules of a training (Kingma and Gao 2023, arXiv:2303.00848).
    """
    if log_snr_center is None:
        return torch.arange(1, schedule.timesteps + 1, dtype=torch.float64) / schedule.timesteps
    log_snr = schedule.alphas_cumprod.logit()
    return ((log_snr_center - log_snr) / 2).exp().atan() * 2 / math.pi


def draw_timesteps(count: int, cdf: Tensor, sampling: str, rng: torch.Generator) -> Tensor:
    """Sample `count` timesteps from a distribution, (count,). If `cdf` ends below 1, the last timestep gets the rest.

    "stratified" samples one timestep from each of `count` equal strata, with independent offsets, like Crowson's
    k-diffusion. Kingma et al. 2021 (arXiv:2107.00630, section I.1) share one offset. The mean loss stays the same,
    with less variance. Strata come shuffled, so they meet images at random, which may be sorted.
    """
    u = torch.rand(count, generator=rng, device=rng.device)
    if sampling == "stratified":
        u = (torch.randperm(count, generator=rng, device=rng.device) + u) / count
    return torch.searchsorted(cdf, u.to(cdf.dtype), right=True).clamp(max=len(cdf) - 1)


def relative_density(cdf: Tensor) -> Tensor:
    """Return T p(t) of what `draw_timesteps` samples, (T,): 1 where t is as likely as if it were uniform."""
    return torch.diff(cdf[:-1], prepend=cdf.new_zeros(1), append=cdf.new_ones(1)) * len(cdf)


def quantile_timesteps(count: int, cdf: Tensor) -> tuple[int, ...]:
    """Return `count` timesteps, descending from the last, that split a distribution into equal shares.

    If there are too few, a timestep repeats.
    """
    shares = torch.arange(count, 0, -1, dtype=cdf.dtype) / count
    below_the_last = torch.searchsorted(cdf, shares[1:] * cdf[-1])
    return (len(cdf) - 1, *below_the_last.tolist())
