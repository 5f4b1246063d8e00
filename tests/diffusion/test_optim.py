"""How the weights move: the learning rate, Adam and Muon, and the averaged weights."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.optim import Muon, orthogonalise
from tests.small import normal
from tests.trainings import one_step, small_training, weights

HALF = 0.5**0.5


@pytest.mark.parametrize(
    ("decay", "warmup", "rates"),
    [
        ("none", 0, {0: 1, 7: 1}),
        ("none", 3, {0: 1 / 4, 1: 2 / 4, 2: 3 / 4, 3: 1, 7: 1}),
        ("cosine", 0, {0: 1, 2: (1 + HALF) / 2, 4: 0.5, 6: (1 - HALF) / 2}),
        ("cosine", 4, {0: 1 / 5, 2: 3 / 5 * (1 + HALF) / 2, 4: 0.5}),
    ],
)
def test_the_learning_rate_warms_up_and_falls_by_half_a_cosine(
    decay: str, warmup: int, rates: dict[int, float]
) -> None:
    optimization = small_training(lr=0.02, lr_decay=decay, warmup_steps=warmup).optimization
    for step, rate in rates.items():
        assert optimization.learning_rate(step) == pytest.approx(0.02 * rate, rel=1e-12)
    assert optimization.learning_rate(8) == pytest.approx(0 if decay == "cosine" else 0.02, abs=1e-12)


def test_both_optimizers_follow_the_learning_rate() -> None:
    training = small_training(optimizer="muon", lr=0.02, lr_decay="cosine", warmup_steps=2)
    for step in range(3):
        one_step(training)
        rates = {group["lr"] for each in training.optimization.optimizers for group in each.param_groups}
        assert rates == {training.optimization.learning_rate(step)}


def test_muon_moves_the_convolutions_between_stem_and_head_and_adam_all_others() -> None:
    training = small_training(optimizer="muon")
    before = weights(training.network)
    one_step(training)
    for name, weight in training.network.named_parameters():
        if name in {"bottleneck.0.conv1.weight", "bottleneck.0.conv2.weight"}:
            update = orthogonalise([0.0975 * weight.grad.flatten(1)])[0].view(weight.shape) * 0.2 * math.sqrt(36)
        else:
            update = weight.grad / (weight.grad.abs() + 1e-8)
        torch.testing.assert_close(before[name] - weight, 0.01 * update, rtol=1e-4, atol=1e-5)


def test_average_is_a_moving_average_whose_decay_warms_up() -> None:
    training = small_training(block="double_conv", ema_decay=0.3)
    average: dict[str, Tensor] = {}
    for step in range(1, 25):
        one_step(training)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, weight in training.network.named_parameters():
            now = weight.detach().double()
            # The average starts at the weights after the first step.
            average[name] = decay * average[name] + (1 - decay) * now if step > 1 else now
            found = training.model.get_parameter(name).detach().double()
            torch.testing.assert_close(found, average[name], rtol=1e-5, atol=1e-6)
    assert (training.model.head.weight - training.network.head.weight).abs().max() > 1e-4
    for name, buffer in training.network.named_buffers():
        assert torch.equal(training.model.get_buffer(name), buffer), f"{name}: statistics of a batch are copied"


# The Gram matrix holds the squares of the singular values, and float32 a ten-millionth of the largest.
@pytest.mark.parametrize(("values", "tolerance"), [([1, 0.99, 0.9], 1e-5), ([1, 0.1, 1e-4], 5e-4), ([1, 0.5, 0], 1e-3)])
@pytest.mark.parametrize("shape", [(3, 3), (3, 288), (288, 3)])
def test_an_orthogonal_update_is_the_quintic_iteration_of_the_singular_values(
    shape: tuple[int, int], values: list[float], tolerance: float
) -> None:
    """Jordan et al. 2024 iterate the matrix; that takes each singular value on its own, and 0 to 0."""
    left, _, right = torch.linalg.svd(normal(*shape).double(), full_matrices=False)
    spread = torch.tensor(values, dtype=torch.float64)
    x = spread / (spread.norm() + 1e-7)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    expected = left * x @ right
    torch.testing.assert_close(orthogonalise([left * spread @ right])[0], expected, rtol=0, atol=1e-10)
    single = orthogonalise([(left * spread @ right).float()])[0]
    assert (single - expected).norm() < tolerance * expected.norm()
    assert not orthogonalise([torch.zeros(shape)])[0].any()


def test_muon_s_steps_are_nesterov_momentum_made_orthogonal() -> None:
    weights = [normal(side, 4, 3, 3, seed=side).requires_grad_() for side in (3, 4, 6, 8, 6, 4)]  # in uneven groups
    weights[::2] = [each.detach().to(memory_format=torch.channels_last).requires_grad_() for each in weights[::2]]
    optimizer = Muon(weights, lr=0.01)
    expected, momenta = [weight.detach().clone() for weight in weights], [torch.zeros_like(each) for each in weights]
    for step in range(3):
        for place, weight in enumerate(weights):
            weight.grad = normal(*weight.shape, seed=10 * step + place)
            momenta[place] = 0.95 * momenta[place] + 0.05 * weight.grad
            nesterov = (0.05 * weight.grad + 0.95 * momenta[place]).flatten(1)
            expected[place] -= 0.01 * 0.2 * 36**0.5 * orthogonalise([nesterov])[0].view(weight.shape)
        optimizer.step()
        torch.testing.assert_close([weight.detach() for weight in weights], expected, rtol=1e-5, atol=1e-6)
