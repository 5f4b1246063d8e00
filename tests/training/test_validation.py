"""The weights that are kept: those of the lowest validation loss."""

import pytest
import torch

from ddpm.compute.randomness import generator
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split
from ddpm.networks.unet import UNet
from ddpm.parallel.world import ALONE
from ddpm.training.losses import DenoisingLoss
from ddpm.training.validation import BestWeights, Validation
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
    uniform,
    weights,
)


def validation(count: int = 8, loss: str = "noise", log_snr_center: float | None = None) -> Validation:
    of_noise_or_v = DenoisingLoss(SCHEDULE, (1, 28, 28), loss, CPU)
    return Validation(split(count, seed=1), of_noise_or_v, of_noise_or_v.cdf(log_snr_center), 0, ALONE)


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


def trained_loss(model: UNet, held_out: Split, loss: str, log_snr_center: float | None = None) -> float:
    """Mean loss that is trained, by hand; of at most 500 images."""
    rng = generator(0, "validation", 0)
    t = draw_timesteps(len(held_out.images), uniform(20), "stratified", rng)
    noise = torch.randn(held_out.images.shape, generator=rng)
    with torch.no_grad():
        pred_noise = denoiser(model)(SCHEDULE.q_sample(to_float(held_out.images), t, noise), t, held_out.labels).noise
    errors = (pred_noise - noise).square().mean(dim=(1, 2, 3)).double()
    cdf = timestep_cdf(SCHEDULE, log_snr_center)
    likely = torch.diff(cdf, prepend=torch.zeros(1, dtype=cdf.dtype))[t] * 20  # than all alike
    return float(((errors / SCHEDULE.alphas_cumprod[t] if loss == "v" else errors) * likely).mean())


@pytest.mark.parametrize("center", [None, -1.0])
@pytest.mark.parametrize("loss", ["noise", "v"])
def test_the_loss_that_decides_is_the_one_that_is_trained(loss: str, center: float | None) -> None:
    found, (model,) = validation(loss=loss, log_snr_center=center), models(1)
    buckets = found.of(denoiser(model), model, 7)
    assert best(found).step == 7
    assert best(found).loss == pytest.approx(trained_loss(model, split(8, seed=1), loss, center), rel=1e-5)
    # What is told is always the error of the noise.
    torch.testing.assert_close(buckets, validation().of(denoiser(model), model, 0), equal_nan=True)


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
