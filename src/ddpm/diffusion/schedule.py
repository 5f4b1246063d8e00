"""The noise schedule and the closed-form forward diffusion (Ho et al. 2020, arXiv:2006.11239).

Equation numbers without a name are that paper's. Its t counts from 1, here t counts from 0.
"""

import copy
import math
from typing import Annotated, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ddpm.pipeline.params import Section

LEAST_SIGNAL = 1e-10  # alphas_cumprod at the last timestep; 4e-5 in Ho et al. 2020
LEAST_NOISE = 1e-10  # beta at the first timestep; 1e-4 in Ho et al. 2020


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
        self.posterior_variance = self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        self.posterior_mean_coef1 = self.alphas_cumprod_prev.sqrt() * self.betas / (1 - self.alphas_cumprod)
        self.posterior_mean_coef2 = self.alphas.sqrt() * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

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

    def q_posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean, like x_t, and variance, (B, 1, 1, 1), of q(x_{t-1} | x_t, x_0) (eqs. 6 and 7)."""
        coef1 = _over_images(self.posterior_mean_coef1, t, x_t)
        coef2 = _over_images(self.posterior_mean_coef2, t, x_t)
        return coef1 * x_start + coef2 * x_t, _over_images(self.posterior_variance, t, x_t)

    def q_between(self, x_start: Tensor, x_t: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Sample x_s ~ q(x_s | x_t, x_0) for any s < t, with `noise` ~ N(0, I).

        x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s - variance) eps + sqrt(variance) noise, where eps is the noise in x_t
        that x_0 implies, and variance = (1 - abar_t / abar_s) (1 - abar_s) / (1 - abar_t).
        Source: Song et al. 2021, arXiv:2010.02502, eqs. 12 and 16.

        Shapes: x_start, x_t and noise (B, C, H, W), s and t (B,), integers in 0..T-1; the result is like x_t.
        """
        after, before = _over_images(self.alphas_cumprod, s, x_t), _over_images(self.alphas_cumprod, t, x_t)
        variance = (1 - before / after) * (1 - after) / (1 - before)
        eps = (x_t - before.sqrt() * x_start) / (1 - before).sqrt()
        return after.sqrt() * x_start + (1 - after - variance).clamp(min=0).sqrt() * eps + variance.sqrt() * noise


def _over_images(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return table[t] in the dtype of `like`, shaped (B, 1, 1, 1) to broadcast over the images."""
    return table[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))
