"""How the weights move: the learning rate, the optimizers and the averaged weights."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.optim import orthogonalise
from ddpm.train import EpochEnd
from tests.training.trainings import finished, new_training, split, weights

HALF = 0.5**0.5


@pytest.mark.parametrize(
    ("decay", "warmup", "rates"),
    [
        ("none", 0, [1] * 8),
        ("none", 3, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1]),
        ("cosine", 0, [1, None, (1 + HALF) / 2, None, 0.5, None, (1 - HALF) / 2, None]),
        ("cosine", 4, [1 / 5, None, 3 / 5 * (1 + HALF) / 2, None, 0.5, None, None, None]),
    ],
)
def test_the_learning_rate_warms_up_and_falls_by_half_a_cosine(
    decay: str, warmup: int, rates: list[float | None]
) -> None:
    optimization = new_training(lr=0.02, lr_decay=decay, warmup_steps=warmup).optimization
    for step, rate in enumerate(rates):
        if rate is not None:
            assert optimization.learning_rate(step) == pytest.approx(0.02 * rate, rel=1e-12)
    assert optimization.learning_rate(8) == pytest.approx(0 if decay == "cosine" else 0.02, abs=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_every_optimizer_follows_the_learning_rate(optimizer: str) -> None:
    training = new_training(optimizer=optimizer, lr=0.02, lr_decay="cosine", warmup_steps=2)
    for step in range(3):
        training.gradient_step(split(4, seed=step), torch.arange(4))
        rates = {group["lr"] for each in training.optimization.optimizers for group in each.param_groups}
        assert rates == {training.optimization.learning_rate(step)}


def test_muon_moves_the_convolutions_between_stem_and_head_and_adam_all_others() -> None:
    training = new_training(optimizer="muon")
    before = weights(training.network)
    training.gradient_step(split(4, seed=2), torch.arange(4))
    for name, weight in training.network.named_parameters():
        assert weight.grad is not None
        if name in {"bottleneck.0.conv1.weight", "bottleneck.0.conv2.weight"}:
            update = orthogonalise([0.0975 * weight.grad.flatten(1)])[0].view(weight.shape) * 0.2 * math.sqrt(36)
        else:
            update = weight.grad / (weight.grad.abs() + 1e-8)
        torch.testing.assert_close(before[name] - weight, 0.01 * update, rtol=1e-4, atol=1e-5)


def test_average_is_a_moving_average_whose_decay_warms_up() -> None:
    training = new_training(ema_decay=0.3, epochs=6)
    average: dict[str, Tensor] = {}
    for event in training.run():
        if isinstance(event, EpochEnd):
            continue
        decay = min(0.3, (1 + event.step) / (10 + event.step))
        for name, weight in training.network.named_parameters():
            now = weight.detach().double()
            # The average starts at the weights after the first step.
            average[name] = decay * average[name] + (1 - decay) * now if event.step > 1 else now
            torch.testing.assert_close(
                training.model.get_parameter(name).detach().double(), average[name], rtol=1e-5, atol=1e-6
            )
    assert (training.model.stem.weight - training.network.stem.weight).abs().max() > 1e-4


def test_average_has_the_networks_batch_statistics() -> None:
    # Buffers are copied; without that, evaluation would use the statistics of the start.
    training = finished(block="double_conv")
    for name, buffer in training.network.named_buffers():
        assert torch.equal(training.model.get_buffer(name), buffer), name
    assert training.network.bottleneck[0].norm1.num_batches_tracked == 8
