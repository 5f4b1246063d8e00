"""Timesteps of a batch: how they are drawn, and the mean losses of their ranges."""

import torch
from torch import Tensor

TIMESTEP_BUCKETS = 10


def draw_timesteps(count: int, timesteps: int, sampling: str, source: torch.Generator) -> Tensor:
    """`count` timesteps, each uniform on 0..timesteps-1, shape (count,).

    "stratified" draws one from each of `count` equal strata, as Kingma et al. 2021 (arXiv:2107.00630, section I.1) do:
    the same mean loss with less variance. The images come shuffled, so which of them gets which stratum is random.
    """
    u = torch.rand(count, generator=source, device=source.device)
    if sampling == "stratified":
        u = (torch.arange(count, device=source.device) + u) / count
    return (u * timesteps).long().clamp(max=timesteps - 1)


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
