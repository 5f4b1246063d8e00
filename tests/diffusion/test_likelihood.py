"""The variational bound against closed forms and torch.distributions."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpm.diffusion import bits as scoring
from ddpm.diffusion.bits import bits_per_dimension
from ddpm.diffusion.likelihood import (
    Denoise,
    discretised_log_likelihood,
    prior_term,
    ranges,
    step_term,
    variational_bound,
)
from ddpm.diffusion.randomness import generator
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas, posterior
from ddpm.images.splits import Split, to_float
from ddpm.params.schedule import ScheduleParams
from tests import small
from tests.reverse import tiny_model

LINEAR = ScheduleParams(timesteps=12, beta_start=0.01, beta_end=0.3)
SCHEDULE = NoiseSchedule(linear_betas(**dict(LINEAR)))
VALUES = (torch.arange(256, dtype=torch.float64) / 255 - 0.5) / 0.5


def denoiser(x_start: Tensor) -> Denoise:
    """One that always sees `x_start`."""
    return lambda x_t, t: x_start


def images(count: int = 3) -> Tensor:
    """Of 256 values in [-1, 1], black and white among them."""
    return to_float(small.images(count))


def bits(nats: Tensor) -> Tensor:
    return nats.flatten(1).mean(1) / math.log(2)


def noises(count: int = 3, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(first, first + count)]


def test_likelihoods_are_differences_of_the_cumulative_distribution() -> None:
    normal = Normal(torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64))
    upper, lower = normal.cdf(VALUES + 1 / 255), normal.cdf(VALUES - 1 / 255)
    upper[-1], lower[0] = 1, 0  # the outermost reach to infinity
    logs = discretised_log_likelihood(VALUES, torch.full_like(VALUES, 0.1), 0.2)
    torch.testing.assert_close(logs.exp(), upper - lower, rtol=1e-9, atol=1e-15)
    # 100 deviations off, the density is exp(-5000), which float64 cannot hold; its logarithm is near the edge's.
    for sign in (-1, 1):
        log = discretised_log_likelihood(VALUES[128:129], VALUES[128:129] + sign * (0.1 + 1 / 255), 1e-3).item()
        assert log == pytest.approx(-(100**2) / 2 - math.log(100 * math.sqrt(2 * math.pi)), abs=1e-3)


def test_prior_and_steps_are_divergences_of_normal_distributions() -> None:
    x_start, estimate = images(), images() * 0.5 + 0.2
    last = SCHEDULE.alphas_cumprod[-1]
    expected = bits(kl_divergence(Normal(last.sqrt() * x_start.double(), (1 - last).sqrt()), Normal(0.0, 1.0)))
    torch.testing.assert_close(prior_term(SCHEDULE, x_start), expected, rtol=1e-6, atol=0)
    for t in (1, 11):
        draw, steps = torch.randn(x_start.shape, generator=noises(1)[0]), torch.full((3,), t)
        x_t = SCHEDULE.q_sample(x_start, steps, draw).double()
        coef1, coef2, variance = posterior(*SCHEDULE.alphas_cumprod[[t, t - 1]].tolist())
        true, guess = (Normal(coef1 * x.double() + coef2 * x_t, variance**0.5) for x in (x_start, estimate))
        expected = bits(kl_divergence(true, guess))
        found = step_term(denoiser(estimate), SCHEDULE, x_start, steps, draw)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_all_steps_are_the_sum_of_all_terms_and_fewer_are_right_on_average() -> None:
    # The error does not depend on the noise, so neither do the terms; one stratum is one timestep.
    x_start, denoise = images(1), denoiser(0.5 * images(1))
    exact = variational_bound(denoise, SCHEDULE, x_start, 11, noises(1)).steps
    draw = torch.zeros_like(x_start)
    terms = [step_term(denoise, SCHEDULE, x_start, torch.full((1,), t), draw) for t in range(1, 12)]
    torch.testing.assert_close(exact, torch.stack(terms).sum(0), rtol=1e-4, atol=0)
    few = variational_bound(denoise, SCHEDULE, x_start.expand(4000, -1, -1, -1), 2, noises(4000)).steps
    assert few.std() > 0
    assert few.mean().item() == pytest.approx(exact.item(), abs=3 * few.std().item() / 4000**0.5)


@pytest.mark.parametrize("count", [0, 1, 25, 999])
def test_ranges_hold_each_timestep_once_and_share_the_fall_of_the_log_snr(count: int) -> None:
    schedule = NoiseSchedule(linear_betas(1000, 1e-5, 0.02))
    found = ranges(schedule, count)
    assert [t for each in found for t in each] == (list(range(1, 1000)) if count else [])
    assert all(found)
    assert len(found) == count
    if count == 25:
        log_snr = schedule.alphas_cumprod.logit()
        falls = [(log_snr[each.start - 1] - log_snr[each.stop - 1]).item() for each in found]
        assert max(falls[4:]) < 1.2 * min(falls[4:])
        assert [len(each) for each in found[:3]] == [1, 1, 1]


def test_the_bound_holds_for_a_gaussian_whose_likelihood_is_known() -> None:
    # Pixels of N(0, 0.3^2), rounded to their values, and the denoiser that knows the distribution.
    schedule = NoiseSchedule(linear_betas(1000, 1e-4, 0.02))
    level = ((torch.randn(64, 1, 28, 28, generator=noises(1, 5)[0]) * 0.3 + 1) * 127.5).round().clamp(0, 255)
    x_start = level / 127.5 - 1

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        signal = schedule.alphas_cumprod[t].sqrt().view(-1, 1, 1, 1)
        return signal * 0.09 / (signal**2 * 0.09 + 1 - signal**2) * x_t

    bound = variational_bound(denoise, schedule, x_start, 999, noises(64))
    centred = torch.zeros_like(x_start, dtype=torch.float64)
    entropy = bits(-discretised_log_likelihood(x_start.double(), centred, 0.3)).mean().item()
    assert entropy < bound.total.mean().item() < entropy + 1


def test_each_image_of_a_random_subset_is_bounded_given_its_own_class_alone_or_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "TERMS", 3)
    loaded, labels = tiny_model(tmp_path, schedule=LINEAR), torch.tensor([3, 7, 7, 3, 7])
    splits = {"test": Split(small.images(4), labels[:4]), "train": Split(small.images(5), labels)}
    network = loaded.denoiser(small.CPU)

    def alone(name: str, index: int, label: Tensor) -> float:
        image, noise = splits[name].images[[index]], [generator(0, f"likelihood {name} image", index)]
        with torch.inference_mode():
            bound = variational_bound(
                lambda x_t, t: network(x_t, t, label).x_start, SCHEDULE, to_float(image), 3, noise
            )
        return bound.total.item()

    found = bits_per_dimension(loaded, splits, 100, torch.device("cpu"))
    assert (found["images"], found["terms"]) == (4, 3)
    for name, split in splits.items():
        chosen = torch.randperm(len(split.labels), generator=generator(0, f"likelihood {name}"))[:4].tolist()
        expected, others = (
            sum(alone(name, index, given[[index]]) for index in chosen) / 4
            for given in (split.labels, 10 - split.labels)
        )
        assert found[name]["bits_per_dim"] == pytest.approx(expected, abs=1e-5)
        assert abs(others - expected) > 2e-4
