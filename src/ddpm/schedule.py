"""The noise schedule, the closed-form forward diffusion (Ho et al. 2020, arXiv:2006.11239), and densities of t.

Equation numbers without a name are that paper's. Its t counts from 1, here t counts from 0.
"""

import copy
import math
from typing import Annotated, Any, NamedTuple, Self, TypeVar

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from exact_stages.params import Section

LEAST_SIGNAL = 1e-10  # alphas_cumprod at the last timestep; 4e-5 in Ho et al. 2020
LEAST_NOISE = 1e-10  # beta at the first timestep; 1e-4 in Ho et al. 2020
Value = TypeVar("Value", float, Tensor)


class ScheduleParams(Section):
    """T and the range of the linear betas. The paper's T is 1000, its range 1e-4 to 0.02 (section 4)."""

    timesteps: Annotated[int, Field(ge=1, le=100_000)]
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]

    @field_validator("beta_start")
    @classmethod
    def _noisy(cls, beta: float) -> float:
        # Samplers divide by the noise, sqrt(1 - abar). 1 - beta has sixteen digits: a smaller beta would lose them.
        if beta < LEAST_NOISE:
            raise ValueError(f"must be at least {LEAST_NOISE:g}; raise it")
        return beta

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.beta_end < self.beta_start:
            raise ValueError("beta_end must be at least beta_start")
        # With a weaker signal, float32 could not tell the error of v from rounding.
        if float(torch.log1p(-linear_betas(self)).sum()) < math.log(LEAST_SIGNAL):
            raise ValueError(
                f"timesteps and beta_end leave less than {LEAST_SIGNAL:g} of the signal; lower one of them"
            )
        return self


def linear_betas(params: ScheduleParams) -> Tensor:
    """Return the betas of t = 0..T-1, (T,), float64."""
    return torch.linspace(params.beta_start, params.beta_end, params.timesteps, dtype=torch.float64)


class Posterior(NamedTuple):
    """The Gaussian q(x_s | x_t, x_0): its mean is coef1 x_0 + coef2 x_t. Numbers, or tensors of one shape."""

    coef1: Any
    coef2: Any
    variance: Any


def posterior(abar_t: Value, abar_s: Value, renewed: Value | None = None) -> Posterior:
    """Return q(x_s | x_t, x_0) for a step of any length to less noise: abar_s >= abar_t, both in float64.

    The mean is sqrt(abar_s) x_0 + sqrt(1 - abar_s - variance) eps, where eps is the noise in x_t that x_0 implies (Song
    et al. 2021, arXiv:2010.02502, eq. 12). Between neighbours this is Ho et al. 2020, eqs. 6 and 7. The result is
    certain at both ends: x_t where abar_s = abar_t, and x_0 where abar_s = 1.

    Args:
        renewed: the share of the variance of the noise in x_s that is new; by default `renewed_share`.
    """
    share = renewed_share(abar_t, abar_s) if renewed is None else renewed
    coef2 = ((1 - abar_s) * (1 - share) / (1 - abar_t)) ** 0.5
    return Posterior(abar_s**0.5 - coef2 * abar_t**0.5, coef2, (1 - abar_s) * share)


def renewed_share(abar_t: Value, abar_s: Value) -> Value:
    """Return the share of new noise, from 0 to 1, at which the reverse step undoes q: 1 - SNR_t / SNR_s."""
    return (1 - abar_t / abar_s) / (1 - abar_t)


class NoiseSchedule:
    """Tables over t = 0..T-1, each (T,), computed in float64.

    `alphas_cumprod_prev` is 1 at t = 0: the step from there ends at x_0, without noise.
    """

    def __init__(self, params: ScheduleParams) -> None:
        self.params = params
        self.timesteps = params.timesteps
        self.betas = linear_betas(params)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = self.alphas.cumprod(0)
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        self.sqrt_alphas_cumprod = self.alphas_cumprod.sqrt()
        self.sqrt_one_minus_alphas_cumprod = (1 - self.alphas_cumprod).sqrt()
        # q(x_{t-1} | x_t, x_0), eqs. 6 and 7.
        self.posterior_mean_coef1, self.posterior_mean_coef2, self.posterior_variance = posterior(
            self.alphas_cumprod, self.alphas_cumprod_prev
        )

    def to(self, device: torch.device) -> Self:
        """Return a copy with its tables on `device`, rounded once from float64 to float32."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.float().to(device))
        return moved

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Sample x_t ~ q(x_t | x_0) with `noise` ~ N(0, I): sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (eq. 4).

        Shapes: x_start and noise (B, C, H, W), t (B,), integers in 0..T-1; the result is like x_start.
        """
        signal = _over_images(self.sqrt_alphas_cumprod, t, x_start)
        spread = _over_images(self.sqrt_one_minus_alphas_cumprod, t, x_start)
        return signal * x_start + spread * noise


def exact(table: Tensor, device: torch.device) -> Tensor:
    """Move a float64 table to a device, in float32 to MPS, which lacks float64."""
    return table.to(torch.float32 if device.type == "mps" else torch.float64).to(device)


def _over_images(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return table[t] in the dtype of `like`, shaped (B, 1, 1, 1) to broadcast over the images."""
    return table[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))


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
    with less variance. Images come shuffled, so strata meet images at random.
    """
    u = torch.rand(count, generator=rng, device=rng.device)
    if sampling == "stratified":
        u = (torch.arange(count, device=rng.device) + u) / count
    return torch.searchsorted(cdf, u.to(cdf.dtype), right=True).clamp(max=len(cdf) - 1)


def relative_density(cdf: Tensor) -> Tensor:
    """Return T p(t) of what `draw_timesteps` samples, (T,): 1 where t is as likely as if it were uniform."""
    return torch.diff(cdf[:-1], prepend=cdf.new_zeros(1), append=cdf.new_ones(1)) * len(cdf)


def quantile_timesteps(count: int, cdf: Tensor) -> tuple[int, ...]:
    """Return `count` timesteps, descending from the last, that split a distribution into equal shares.

    Raises:
        ValueError: a timestep would repeat.
    """
    shares = torch.arange(count, 0, -1, dtype=cdf.dtype) / count
    below_the_last = torch.searchsorted(cdf, shares[1:] * cdf[-1])
    timesteps = (len(cdf) - 1, *below_the_last.tolist())
    if len({*timesteps}) < count:
        raise ValueError(f"{count} of {len(cdf)} timesteps in equal shares would repeat one; ask for fewer")
    return timesteps
