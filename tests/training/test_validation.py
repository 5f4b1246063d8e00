"""The weights that are kept: those of the lowest validation loss."""

import pytest
import torch

from ddpm.compute.randomness import generator
from ddpm.parallel.world import ALONE
from ddpm.schedule import draw_timesteps
from ddpm.train import BestWeights, DenoisingLoss, Validation
from ddpm.unet import UNet
from tests.small import CPU
from tests.training.trainings import (
    SCHEDULE,
    assert_equal,
    assert_equal_weights,
    denoiser,
    finished,
    network,
    new_training,
    split,
    weights,
)


def validation(count: int = 8) -> Validation:
    of_noise = DenoisingLoss(SCHEDULE, (1, 28, 28), "noise", CPU)
    return Validation(split(count, seed=1), of_noise, of_noise.cdf(None), 0, ALONE)


def models(count: int, spoilt: int | None = None) -> list[UNet]:
    """Networks that differ in how much noise they see, one of which perhaps sees no number."""
    found = [network().eval() for _ in range(count)]
    with torch.no_grad():
        for index, model in enumerate(found):
            model.head[2].weight *= torch.nan if index == spoilt else index + 1  # type: ignore[index, operator]
    return found


def best(found: Validation) -> BestWeights:
    assert found.best
    return found.best


@pytest.mark.parametrize(("center", "share"), [(None, 0.0), (-1.0, 0.0), (2.0, 0.3)])
@pytest.mark.parametrize("loss", ["noise", "v"])
def test_the_loss_that_decides_is_the_one_that_is_trained(loss: str, center: float | None, share: float) -> None:
    """Without weights in its head, the network predicts 0, so the loss at t is that of the noise, about 1, or of v."""
    (model,) = models(1)
    with torch.no_grad():
        for weight in model.head.parameters():
            weight.zero_()
    of_noise_or_v = DenoisingLoss(SCHEDULE, (1, 28, 28), loss, CPU)
    cdf = of_noise_or_v.cdf(center, share)
    found = Validation(split(4000, seed=1), of_noise_or_v, cdf, 0, ALONE)
    buckets = found.of(denoiser(model), model, 7)
    trained = draw_timesteps(1_000_000, cdf, "uniform", generator(0, "test"))
    weights = 1 / SCHEDULE.alphas_cumprod[trained] if loss == "v" else torch.ones(len(trained))
    assert best(found).step == 7
    assert best(found).loss == pytest.approx(float(weights.mean()), rel=0.01)
    torch.testing.assert_close(buckets, torch.ones(10), rtol=0.02, atol=0)  # told is the error of the noise


def test_a_loss_that_is_not_finite_is_never_kept() -> None:
    for order, step in (((0, 1), 1), ((1, 0), 0)):
        found, networks = validation(), models(2, spoilt=0)
        for at, index in enumerate(order):
            found.of(denoiser(networks[index]), networks[index], at)
        assert best(found).step == step


def test_without_images_nothing_is_kept() -> None:
    found, (model,) = validation(0), models(1)
    assert found.of(denoiser(model), model, 1) is None
    assert found.best is None
    training = finished()
    assert_equal_weights(training.best(), training.model)


@pytest.mark.parametrize(("block", "ema_decay"), [("residual", 0.9), ("residual", 0), ("double_conv", 0.9)])
def test_the_best_model_is_that_of_the_lowest_validation_loss(block: str, ema_decay: float) -> None:
    """The weights grow wild after step 50, the end of the first epoch."""
    training = new_training(count=200, held_out=8, epochs=3, block=block, ema_decay=ema_decay)
    then = {}
    for _ in training.run():
        if training.step == 50:
            then = weights(training.model)
        if training.step > 50:
            with torch.no_grad():
                for weight in training.network.parameters():
                    weight.add_(1)
    best = training.best()
    assert best is not training.model
    assert_equal(weights(best), then)
    assert all((weight != then[name]).any() for name, weight in training.model.named_parameters())
