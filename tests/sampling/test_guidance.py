"""Guidance: the written-out combination, where it acts, and what it costs."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.sampling.guidance import PredictNoise, guided
from ddpm.sampling.samplers import sample_loop
from tests.sampling.walks import REFERENCE, fake_model, noise_from, normals, sampler

LOG_SNR = REFERENCE.alphas_cumprod.logit()


def unlabelled_model(x_t: Tensor, t: int) -> Tensor:
    """Another fixed function."""
    return 0.5 * torch.cos(0.7 * x_t + 0.02 * t)


def counted(calls: list[tuple[str, int]], guidance: float, interval: tuple[float, float]) -> PredictNoise:
    """The two models as one that is guided; `calls` says which was asked, and at which t."""

    def predict_noise(x_t: Tensor, t: int) -> Tensor:
        calls.append(("one", t))
        return fake_model(x_t, t)

    def predict_both(x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        calls.append(("both", t))
        return fake_model(x_t, t), unlabelled_model(x_t, t)

    return guided(predict_noise, predict_both, REFERENCE, guidance, interval)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.5, 4.0])
def test_the_combination_is_the_written_out_one_within_the_interval_and_plain_outside(guidance: float) -> None:
    calls: list[tuple[str, int]] = []
    predict = counted(calls, guidance, (-4.0, 2.0))
    x_t = next(normals())
    inside = [
        t for t in range(1000) if -4 <= math.log(REFERENCE.alphas_cumprod[t] / (1 - REFERENCE.alphas_cumprod[t])) <= 2
    ]
    assert 0 < inside[0] < inside[-1] < 999
    for t in (0, inside[0] - 1, inside[0], 500, inside[-1], inside[-1] + 1, 999):
        with_label, without = fake_model(x_t, t), unlabelled_model(x_t, t)
        expected = guidance * with_label + (1 - guidance) * without if t in inside else with_label
        torch.testing.assert_close(predict(x_t, t), expected, rtol=0, atol=1e-12)
        assert calls.pop() == ("both" if t in inside else "one", t)
    assert not calls


def test_a_guidance_of_1_is_plain_and_asks_once_everywhere() -> None:
    calls: list[tuple[str, int]] = []
    plain, other = sampler("dpmpp_2m", steps=10), sampler("dpmpp_2m", steps=10, guidance_interval=(-1.0, 1.0))
    predict = counted(calls, 1.0, (-100.0, 100.0))
    ours = list(sample_loop(predict, REFERENCE, other, noise_from(normals())))
    theirs = list(sample_loop(fake_model, REFERENCE, plain, noise_from(normals())))
    assert {which for which, _ in calls} == {"one"}
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our.x_prev, their.x_prev)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp_2m"])
def test_every_sampler_walks_by_the_guided_prediction(name: str) -> None:
    def combined(x_t: Tensor, t: int) -> Tensor:
        if not -3 <= LOG_SNR[t] <= 1:
            return fake_model(x_t, t)
        return unlabelled_model(x_t, t) + 2.5 * (fake_model(x_t, t) - unlabelled_model(x_t, t))

    calls: list[tuple[str, int]] = []
    predict = counted(calls, 2.5, (-3.0, 1.0))
    params = sampler(name, steps=12)
    ours = list(sample_loop(predict, REFERENCE, params, noise_from(normals())))
    theirs = list(sample_loop(combined, REFERENCE, params, noise_from(normals())))
    assert {which for which, _ in calls} == {"one", "both"}
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.x_prev, their.x_prev, rtol=0, atol=1e-12)


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

    predict = guided(
        lambda x_t, _: noises(x_t)[0],
        lambda x_t, _: noises(x_t),
        REFERENCE,
        guidance,
        (-100.0, 100.0),
    )
    x_t = torch.linspace(-3, 3, 61, dtype=torch.float64).view(-1, 1, 1, 1).requires_grad_()
    of_label, of_all = log_densities(x_t)
    (score,) = torch.autograd.grad((guidance * of_label + (1 - guidance) * of_all).sum(), x_t)
    torch.testing.assert_close(predict(x_t.detach(), t), -(1 - alpha_bar).sqrt() * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance": -0.1},
        {"guidance": math.nan},
        {"guidance_interval": (2.0, -4.0)},
        {"guidance_interval": (0.0,)},
        {"guidance_interval": (-101.0, 0.0)},
        {"guidance_interval": 3.0},
    ],
    ids=str,
)
def test_bad_guidance_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="guidance"):
        sampler(**change)
