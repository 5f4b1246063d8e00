"""What a training tells: the losses of its steps and epochs, and those of the held-out images."""

import copy
import math

import pytest
import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.splits import to_float
from ddpm.schedule import draw_timesteps
from ddpm.train import EpochEnd, LossPoint
from tests.training.trainings import (
    SCHEDULE,
    denoiser,
    ends,
    new_training,
    recorded,
    split,
    uniform,
    validated,
)


def by_bucket(t: Tensor, losses: Tensor) -> Tensor:
    """Mean loss in each tenth of the 20 timesteps."""
    return torch.stack([losses[t // 2 == bucket].mean() for bucket in range(10)])


def test_validation_is_the_averaged_models_loss_by_bucket() -> None:
    # More than one chunk of 500, and BatchNorm, whose mode shows in the values.
    training = new_training(held_out=503, block="double_conv")
    for seed in (2, 3, 4):
        training.gradient_step(split(4, seed), torch.arange(4))
    timesteps, losses = [], []
    held_out = split(503, seed=1)
    for chunk, (levels, labels) in enumerate(zip(*(each.split(500) for each in held_out), strict=True)):
        x_start = to_float(levels)
        rng = generator(0, "validation", chunk)
        t = draw_timesteps(len(x_start), uniform(20), "stratified", rng)
        noise = torch.randn(x_start.shape, generator=rng)
        with torch.no_grad():
            network = copy.deepcopy(training.model).eval()
            pred_noise = denoiser(network)(SCHEDULE.q_sample(x_start, t, noise), t, labels).noise
        timesteps.append(t)
        losses.append((pred_noise - noise).square().mean(dim=(1, 2, 3)))
    expected = by_bucket(torch.cat(timesteps), torch.cat(losses))
    torch.testing.assert_close(validated(training), expected, rtol=1e-5, atol=1e-6)


def test_validation_has_no_value_where_no_timestep_fell_and_none_without_images() -> None:
    # Three strata of 20 timesteps: at most three buckets of two.
    assert validated(new_training(held_out=3)).isfinite().sum() == 3
    assert [end.validation for end in ends(new_training())] == [None, None]


@pytest.mark.parametrize(
    ("count", "epochs", "steps"),
    [
        (16, 30, [52, 100, 120]),  # of 4 steps an epoch: the first ends after 50 and 100, and the last
        (16, 2.25, [9]),
        (204, 3, [51, 102, 153]),
        (400, 1.5, [100, 150]),
    ],
)
def test_some_fifty_steps_lie_between_two_validations(count: int, epochs: float, steps: list[int]) -> None:
    found = ends(new_training(count=count, held_out=4, epochs=epochs))
    assert len(found) == math.ceil(epochs)
    assert [end.step for end in found if end.validation is not None] == steps


def test_logged_losses_are_means_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(epochs=2, log_every=3)
    steps = recorded(training, "gradient_step", monkeypatch)
    logged = [event for event in training.run() if isinstance(event, LossPoint)]
    means = [losses.mean().item() for _, (_, losses) in steps]
    # Eight steps: logging runs on over the end of an epoch, and the end of training is always logged.
    assert [event.step for event in logged] == [3, 6, 8]
    expected = [sum(means[0:3]) / 3, sum(means[3:6]) / 3, sum(means[6:8]) / 2]
    assert [event.loss for event in logged] == pytest.approx(expected, rel=1e-6)


def test_epochs_end_with_their_own_losses_by_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=100, epochs=2, batch_size=50, lr=0.05)
    steps = recorded(training, "gradient_step", monkeypatch)
    found = ends(training)
    assert [(end.epoch, end.step) for end in found] == [(1, 2), (2, 4)]
    for end, two in zip(found, [steps[:2], steps[2:]], strict=True):
        expected = by_bucket(*(torch.cat(each) for each in zip(*(step for _, step in two), strict=True)))
        torch.testing.assert_close(end.training, expected, rtol=1e-5, atol=1e-6)


def test_logged_losses_are_over_uniform_t_whatever_density_is_trained() -> None:
    """The loss is a function of t alone here, so that its means over t, and over each tenth of t, are known."""
    training = new_training(count=64, batch_size=64, epochs=400, log_every=400, log_snr_center=1.0, log_snr_uniform=0.1)
    of_t, cdf = torch.linspace(1, 20, 20).sqrt(), training.gradient_step.cdf

    def step(*_: object) -> tuple[Tensor, Tensor]:
        t = draw_timesteps(64, cdf, "uniform", generator(0, "test", training.step))
        training.optimization.steps += 1
        return t, of_t[t]

    training.gradient_step = step  # type: ignore[assignment]
    events = [*training.run()]
    (logged,) = [event.loss for event in events if isinstance(event, LossPoint)]
    assert logged == pytest.approx(of_t.mean().item(), rel=0.03)
    by_epoch = torch.stack([event.training for event in events if isinstance(event, EpochEnd)])
    torch.testing.assert_close(by_epoch.nanmean(0), of_t.view(10, 2).mean(1), rtol=0.03, atol=0)
