"""Guidance: where everything is known, the guided estimate has the score of theory."""

import pytest
import torch
from torch import Tensor

from ddpm.sample import guided
from tests.sampling.reverse import REFERENCE


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("t", [50, 400, 999])
def test_in_a_gaussian_mixture_the_guided_score_is_exact(guidance: float, t: int) -> None:
    """The eps implied is minus the noise's deviation times the score of p(x_t)^(1 - guidance) p(x_t | y)^guidance."""
    means = torch.tensor([-0.8, 0.1, 0.9], dtype=torch.float64)
    deviations = torch.tensor([0.2, 0.1, 0.3], dtype=torch.float64)
    shares, label = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 2
    alpha_bar = REFERENCE.alphas_cumprod[t]
    marginals = torch.distributions.Normal(
        alpha_bar.sqrt() * means, (alpha_bar * deviations.square() + 1 - alpha_bar).sqrt()
    )

    def log_densities(x_t: Tensor) -> tuple[Tensor, Tensor]:
        each = marginals.log_prob(x_t.unsqueeze(-1))
        return each[..., label], (each + shares.log()).logsumexp(-1)

    def estimates(x_t: Tensor) -> tuple[Tensor, Tensor]:
        """The exact expected x_0 given x_t, with the label and without: through each class, not the score."""
        gain = alpha_bar.sqrt() * deviations.square() / marginals.variance
        x_start = means + gain * (x_t.unsqueeze(-1) - marginals.mean)
        posterior = (marginals.log_prob(x_t.unsqueeze(-1)) + shares.log()).softmax(-1)
        return x_start[..., label], (posterior * x_start).sum(-1)

    told, untold = (lambda x_t, _, which=which: estimates(x_t)[which] for which in (0, 1))
    denoise = guided(told, untold, REFERENCE, guidance, (-100.0, 100.0))
    x_t = torch.linspace(-3, 3, 61, dtype=torch.float64).view(-1, 1, 1, 1).requires_grad_()
    of_label, of_all = log_densities(x_t)
    (score,) = torch.autograd.grad((guidance * of_label + (1 - guidance) * of_all).sum(), x_t)
    eps = (x_t - alpha_bar.sqrt() * denoise(x_t, t)) / (1 - alpha_bar).sqrt()
    torch.testing.assert_close(eps.detach(), -(1 - alpha_bar).sqrt() * score, rtol=1e-9, atol=1e-9)
