"""The noise schedule, the closed-form forward diffusion (Ho et al. 2020, arXiv:2006.11239).

Equation numbers without a name are that paper's. Its t counts from 1, here t counts from 0.
"""

import copy
from typing import Self, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value", float, Tensor)


def linear_betas(timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Return the betas of t = 0..T-1, (T,), float64; the defaults are the paper's (section 4)."""
    return torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)


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
    coef2 = _root((1 - abar_s) * (1 - share) / (1 - abar_t))
    return _root(abar_s) - coef2 * _root(abar_t), coef2, (1 - abar_s) * share


def _root(value: Value) -> Value:
    """Return the square root of a number or a tensor; `**` of tensors rounds otherwise on other processors."""
    return value.sqrt() if isinstance(value, Tensor) else value**0.5


def renewed_share(abar_t: Value, abar_s: Value) -> Value:
    """Return the share of new noise, from 0 to 1, at which the reverse step undoes q: 1 - SNR_t / SNR_s."""
    return (1 - abar_t / abar_s) / (1 - abar_t)


class NoiseSchedule:
    """Tables over t = 0..T-1, each (T,), computed in float64.

    `alphas_cumprod_prev` is 1 at t = 0: the step from there ends at x_0, without noise.
    """

    def __init__(self, betas: Tensor) -> None:
        """Compute the tables of any betas, (T,), float64, such as `linear_betas`.

        Raises:
            ValueError: a beta is not between 0 and 1.
        """
        if not ((betas > 0) & (betas < 1)).all():
            raise ValueError("betas: must be above 0 and below 1")
        self.timesteps = len(betas)
        self.betas = betas
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
