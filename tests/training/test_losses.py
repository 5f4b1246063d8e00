"""What a training tells: the losses of its steps and epochs, and those of the held-out images."""

import copy
import math

import pytest
import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.diffusion.timesteps import draw_timesteps
from ddpm.images.pixels import to_float
from ddpm.training.loop import EpochEnd, Logged
from tests.training.trainings import SCHEDULE, new_training, record_steps, split, uniform, validated, weights


def by_bucket(t: Tensor, losses: Tensor) -> Tensor:
    """Mean loss in each tenth of the 20 timesteps."""
    return torch.stack([losses[t // 2 == bucket].mean() for bucket in range(10)])


@pytest.mark.parametrize("ema_decay", [0, 0.9])
def test_validating_twice_gives_the_same_and_changes_nothing(ema_decay: float) -> None:
    training = new_training(held_out=6, block="double_conv", ema_decay=ema_decay)
    training.gradient_step(split(4, seed=2))
    before = weights(training.network)
    first, second = validated(training), validated(training)
    assert torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))
    torch.testing.assert_close(weights(training.network), before, rtol=0, atol=0)


@pytest.mark.parametrize("ema_decay", [0, 0.9])
def test_a_network_trains_on_after_a_validation(ema_decay: float) -> None:
    training = new_training(count=200, held_out=6, block="double_conv", ema_decay=ema_decay)
    for event in training.run():
        assert not isinstance(event, EpochEnd) or event.validation is not None
        assert all(module.training for module in training.network.modules())


def test_validation_is_the_averaged_models_loss_by_bucket() -> None:
    # More than one chunk of 500, and BatchNorm, whose mode shows in the values.
    training = new_training(held_out=503, block="double_conv")
    for seed in (2, 3, 4):
        training.gradient_step(split(4, seed))
    timesteps, losses = [], []
    held_out = split(503, seed=1)
    for chunk, (levels, labels) in enumerate(zip(*(each.split(500) for each in held_out), strict=True)):
        x_start = to_float(levels)
        source = generator(0, "validation", chunk)
        t = draw_timesteps(len(x_start), uniform(20), "stratified", source)
        noise = torch.randn(x_start.shape, generator=source)
        with torch.no_grad():
            pred_noise = copy.deepcopy(training.model).eval()(SCHEDULE.q_sample(x_start, t, noise), t, labels)
        timesteps.append(t)
        losses.append((pred_noise - noise).square().mean(dim=(1, 2, 3)))
    expected = by_bucket(torch.cat(timesteps), torch.cat(losses))
    torch.testing.assert_close(validated(training), expected, rtol=1e-5, atol=1e-6)


def test_validation_has_no_value_where_no_timestep_fell() -> None:
    # Three strata of 20 timesteps: at most three buckets of two.
    losses = validated(new_training(held_out=3))
    assert losses.shape == (10,)
    assert losses.isfinite().sum() == 3
    assert losses.isnan().sum() == 7


def test_without_held_out_images_there_is_no_validation() -> None:
    ends = [event for event in new_training().run() if isinstance(event, EpochEnd)]
    assert [end.validation for end in ends] == [None, None]


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
    training = new_training(count=count, held_out=4, epochs=epochs)
    ends = [event for event in training.run() if isinstance(event, EpochEnd)]
    assert len(ends) == math.ceil(epochs)
    assert [end.step for end in ends if end.validation is not None] == steps


def test_logged_losses_are_means_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(epochs=2, log_every=3)
    steps = record_steps(training, monkeypatch)
    events = list(training.run())
    means = [losses.mean().item() for _, _, losses in steps]
    logged = [event for event in events if isinstance(event, Logged)]
    # Eight steps: logging runs on over the end of an epoch, and the end of training is always logged.
    assert [event.step for event in logged] == [3, 6, 8]
    expected = [sum(means[0:3]) / 3, sum(means[3:6]) / 3, sum(means[6:8]) / 2]
    assert [event.loss for event in logged] == pytest.approx(expected, rel=1e-6)
    assert [type(event).__name__ for event in events if event] == ["Logged", "EpochEnd", "Logged", "Logged", "EpochEnd"]


def test_epochs_end_with_their_own_losses_by_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(count=100, epochs=2, batch_size=50, lr=0.05)
    steps = record_steps(training, monkeypatch)
    ends = [event for event in training.run() if isinstance(event, EpochEnd)]
    assert [(end.epoch, end.step) for end in ends] == [(1, 2), (2, 4)]
    for end, (first, second) in zip(ends, [steps[:2], steps[2:]], strict=True):
        expected = by_bucket(torch.cat([first[1], second[1]]), torch.cat([first[2], second[2]]))
        torch.testing.assert_close(end.training, expected, rtol=1e-5, atol=1e-6)
