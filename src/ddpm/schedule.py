"""The noise schedule, the closed-form forward diffusion (Ho et al. 2020, arXiv:2006.11239).

Equation numbers without a name are that paper's. Its t counts from 1, here t counts from 0.
"""

import copy
import math
from typing import Annotated, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from exact_stages.params import Section

LEAST_SIGNAL = 1e-10  # alphas_cumprod at the last timestep; 4e-5 in Ho et al. 2020
# Beta at the first timestep; 1e-4 in Ho et al. 2020. Samplers divide by the noise, sqrt(1 - abar), and 1 - beta has
# sixteen digits: a smaller beta would lose them.
LEAST_NOISE = 1e-10
Value = TypeVar("Value", float, Tensor)


class ScheduleParams(Section):
    """T and the range of the linear betas. The paper's T is 1000, its range 1e-4 to 0.02 (section 4)."""

    timesteps: Annotated[int, Field(ge=1, le=100_000)]
    beta_start: Annotated[float, Field(ge=LEAST_NOISE, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]

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


def posterior(abar_t: Value, abar_s: Value, renewed: Value | None = None) -> tuple[Value, Value, Value]:
    """Return coef1, coef2 and the variance of q(x_s | x_t, x_0), whose mean is coef1 x_0 + coef2 x_t.

    The step may have any length, to less noise: abar_s >= abar_t, both in float64, numbers or tensors of one shape.
    The mean is sqrt(abar_s) x_0 + sqrt(1 - abar_s - variance) eps, where eps is the noise in x_t that x_0 implies (Song
    et al. 2021, arXiv:2010.02502, eq. 12). Between neighbours this is Ho et al. 2020, eqs. 6 and 7. The result is
    certain at both ends: x_t where abar_s = abar_t, and x_0 where abar_s = 1.

    Args:
        renewed: the share of the variance of the noise in x_s that is new; by default `renewed_share`.
    """
    share = renewed_share(abar_t, abar_s) if renewed is None else renewed
    coef2 = ((1 - abar_s) * (1 - share) / (1 - abar_t)) ** 0.5
    return abar_s**0.5 - coef2 * abar_t**0.5, coef2, (1 - abar_s) * share


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
        signal = self.sqrt_alphas_cumprod[t].to(x_start.dtype).view(-1, 1, 1, 1)
        spread = self.sqrt_one_minus_alphas_cumprod[t].to(x_start.dtype).view(-1, 1, 1, 1)
        return signal * x_start + spread * noise
