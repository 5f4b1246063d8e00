"""Guidance: where everything is known, the guided prediction is the score that theory has."""

import pytest
import torch
from torch import Tensor

from ddpm.sampling.guidance import guided
from tests.sampling.walks import REFERENCE


@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("t", [50, 400, 999])
def test_in_a_gaussian_mixture_the_guided_score_is_exact(guidance: float, t: int) -> None:
    """eps is minus the deviation of the noise times the score of p(x_t)^(1 - guidance) p(x_t | y)^guidance."""
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

    def noises(x_t: Tensor) -> tuple[Tensor, Tensor]:
        """The exact expected noise given x_t, with the label and without: through x_0 of each class, not the score."""
        gain = alpha_bar.sqrt() * deviations.square() / marginals.variance
        x_start = means + gain * (x_t.unsqueeze(-1) - marginals.mean)
        eps = (x_t.unsqueeze(-1) - alpha_bar.sqrt() * x_start) / (1 - alpha_bar).sqrt()
        posterior = (marginals.log_prob(x_t.unsqueeze(-1)) + shares.log()).softmax(-1)
        return eps[..., label], (posterior * eps).sum(-1)

    predict = guided(lambda x_t, _: noises(x_t)[0], lambda x_t, _: noises(x_t), REFERENCE, guidance, (-100.0, 100.0))
    x_t = torch.linspace(-3, 3, 61, dtype=torch.float64).view(-1, 1, 1, 1).requires_grad_()
    of_label, of_all = log_densities(x_t)
    (score,) = torch.autograd.grad((guidance * of_label + (1 - guidance) * of_all).sum(), x_t)
    torch.testing.assert_close(predict(x_t.detach(), t), -(1 - alpha_bar).sqrt() * score, rtol=1e-9, atol=1e-9)
