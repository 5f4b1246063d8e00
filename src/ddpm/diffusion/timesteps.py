"""Timesteps of a batch: how they are drawn, and the mean losses of their ranges."""

import math

import torch
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule

TIMESTEP_BUCKETS = 10


def timestep_cdf(schedule: NoiseSchedule, log_snr_center: float | None) -> Tensor:
    """The probability that t or an earlier timestep is drawn, for every t, shape (T,), float64.

    Linear betas, drawn uniformly (None), spend half of the draws where almost nothing but noise is left. A center takes
    the log signal-to-noise ratios lambda that the cosine schedule visits instead, moved there: their density is
    sech((lambda - center) / 2) / (2 pi), where Nichol and Dhariwal 2021 (arXiv:2102.09672, eq. 17) have the center 0.
    Given the loss, a schedule of training is no more than such a density (Kingma and Gao 2023, arXiv:2303.00848).
    """
    if log_snr_center is None:
        return torch.arange(1, schedule.timesteps + 1, dtype=torch.float64) / schedule.timesteps
    log_snr = schedule.alphas_cumprod.logit()
    return ((log_snr_center - log_snr) / 2).exp().atan() * 2 / math.pi


def draw_timesteps(count: int, cdf: Tensor, sampling: str, source: torch.Generator) -> Tensor:
    """`count` timesteps of this distribution, shape (count,); what `cdf` lacks of 1 is the last one's.

    "stratified" draws one from each of `count` equal strata, each with an offset of its own, as Crowson's k-diffusion
    does (Kingma et al. 2021, arXiv:2107.00630, section I.1, share one offset): the same mean loss with less variance.
    The images come shuffled, so which of them gets which stratum is random.
    """
    u = torch.rand(count, generator=source, device=source.device)
    if sampling == "stratified":
        u = (torch.arange(count, device=source.device) + u) / count
    return torch.searchsorted(cdf, u.to(cdf.dtype), right=True).clamp(max=len(cdf) - 1)


def quantile_timesteps(count: int, cdf: Tensor) -> tuple[int, ...]:
    """`count` timesteps, descending from the last, that part this distribution into equal shares.

    Raises:
        ValueError: they would not all be different.
    """
    shares = torch.arange(count, 0, -1, dtype=cdf.dtype) / count
    below_the_last = torch.searchsorted(cdf, shares[1:] * cdf[-1]).clamp(max=len(cdf) - 1)
    timesteps = (len(cdf) - 1, *below_the_last.tolist())
    if len({*timesteps}) < count:
        raise ValueError(f"{count} of {len(cdf)} timesteps in equal shares would not all be different")
    return timesteps


class Buckets:
    """Running means of losses in TIMESTEP_BUCKETS equal ranges of t, kept on the device."""

    def __init__(self, timesteps: int, device: torch.device) -> None:
        self.timesteps = timesteps
        self.sums = torch.zeros(TIMESTEP_BUCKETS, device=device)
        self.counts = torch.zeros(TIMESTEP_BUCKETS, device=device)

    def add(self, t: Tensor, losses: Tensor) -> None:
        """Count the losses (B,) of timesteps (B,) in."""
        bucket = t * TIMESTEP_BUCKETS // self.timesteps
        self.sums.index_add_(0, bucket, losses)
        self.counts.index_add_(0, bucket, torch.ones_like(losses))

    def clear(self) -> None:
        """Begin anew."""
        self.sums.zero_()
        self.counts.zero_()

    def mean(self) -> Tensor:
        """Mean per bucket, NaN where no t fell."""
        return (self.sums / self.counts).cpu()
