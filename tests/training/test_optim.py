"""How the weights move: the learning rate, the optimizers and the averaged weights."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.training.loop import EpochEnd
from ddpm.training.muon import orthogonalise
from tests.training.trainings import assert_equal_weights, finished, network, new_training, split, weights


def test_learning_rate_constant() -> None:
    training = new_training(lr=0.02)
    assert [training.optimization.learning_rate(step) for step in range(8)] == [0.02] * 8


def test_learning_rate_warms_up() -> None:
    training = new_training(lr=0.02, warmup_steps=3)
    rates = [training.optimization.learning_rate(step) for step in range(6)]
    assert rates == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.02, 0.02], rel=1e-12)


def test_learning_rate_falls_by_half_a_cosine() -> None:
    training = new_training(lr=0.02, lr_decay="cosine")
    assert training.total_steps == 8
    rates = [training.optimization.learning_rate(step) for step in (0, 2, 4, 6, 8)]
    assert rates == pytest.approx([0.02, 0.01 * (1 + 0.5**0.5), 0.01, 0.01 * (1 - 0.5**0.5), 0], abs=1e-12)


def test_learning_rate_warm_up_and_cosine_multiply() -> None:
    training = new_training(lr=0.02, lr_decay="cosine", warmup_steps=4)
    assert training.optimization.learning_rate(2) == pytest.approx(
        0.02 * 3 / 5 * 0.5 * (1 + math.cos(math.pi / 4)), rel=1e-12
    )


def test_muon_moves_the_convolutions_between_stem_and_head_and_adam_all_others() -> None:
    training = new_training(model=network(), optimizer="muon")
    muon, adam = training.optimization.optimizers
    names = {id(weight): name for name, weight in training.network.named_parameters()}

    def moved_by(optimizer: torch.optim.Optimizer) -> set[str]:
        return {names[id(weight)] for group in optimizer.param_groups for weight in group["params"]}

    assert moved_by(muon) == {"bottleneck.0.conv1.weight", "bottleneck.0.conv2.weight"}
    assert moved_by(adam) == set(names.values()) - moved_by(muon)
    before = weights(training.network)
    training.gradient_step(split(4, seed=2))
    for name, weight in training.network.named_parameters():
        update = orthogonalise([0.0975 * weight.grad.flatten(1)])[0] * 0.2 * 36**0.5 if name in moved_by(muon) else None
        expected = weight.grad / (weight.grad.abs() + 1e-8) if update is None else update.view(weight.shape)
        torch.testing.assert_close(before[name] - weight, 0.01 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_every_optimizer_follows_the_learning_rate(optimizer: str) -> None:
    training = new_training(optimizer=optimizer, lr=0.02, lr_decay="cosine", warmup_steps=2)
    for step in range(3):
        training.gradient_step(split(4, seed=step))
        rates = {float(group["lr"]) for each in training.optimization.optimizers for group in each.param_groups}
        assert rates == {training.optimization.learning_rate(step)}


def test_a_state_keeps_the_memory_format_of_the_optimizers() -> None:
    first = finished(optimizer="adam")
    again = new_training(optimizer="adam")
    again.load_state({name: tensor.contiguous() for name, tensor in first.state().items()})
    for optimizer, wanted in zip(again.optimization.optimizers, first.optimization.optimizers, strict=True):
        for values, wanted_values in zip(optimizer.state.values(), wanted.state.values(), strict=True):
            assert {name: value.stride() for name, value in values.items()} == {
                name: value.stride() for name, value in wanted_values.items()
            }


@pytest.mark.parametrize("ema_decay", [0.3, 0.9])
def test_average_is_a_moving_average_whose_decay_warms_up(ema_decay: float) -> None:
    training = new_training(ema_decay=ema_decay, epochs=6)
    average: dict[str, Tensor] = {}
    for event in training.run():
        if isinstance(event, EpochEnd):
            continue
        decay = min(ema_decay, (1 + event.step) / (10 + event.step))
        for name, weight in training.network.named_parameters():
            now = weight.detach().double()
            # The average starts at the weights after the first step.
            average[name] = decay * average[name] + (1 - decay) * now if event.step > 1 else now
            torch.testing.assert_close(
                training.model.get_parameter(name).detach().double(), average[name], rtol=1e-5, atol=1e-6
            )
    assert training.model is not training.network
    assert (training.model.stem.weight - training.network.stem.weight).abs().max() > 1e-4


def test_average_has_the_networks_batch_statistics() -> None:
    # Buffers are copied; without that, evaluation would use the statistics of the start.
    training = finished(block="double_conv")
    for name, buffer in training.network.named_buffers():
        assert torch.equal(training.model.get_buffer(name), buffer), name
    assert training.network.bottleneck[0].norm1.num_batches_tracked == 8


def test_without_averaging_the_network_itself_is_kept() -> None:
    training = finished(ema_decay=0)
    assert training.model is training.network
    assert_equal_weights(training.model, finished(ema_decay=0.9).network)
