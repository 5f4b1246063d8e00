"""The weights that are kept: those of the lowest validation loss, also over a resumption."""

import copy
from typing import Any

import pytest
import torch
from ddpm.parallel.group import ALONE
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.diffusion.timesteps import draw_timesteps, timestep_cdf
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split
from ddpm.networks.unet import UNet
from ddpm.training.losses import Denoising
from ddpm.training.validation import Validation
from tests.training.trainings import (
    CPU,
    SCHEDULE,
    assert_equal_weights,
    finished,
    network,
    new_training,
    split,
    uniform,
    weights,
)


def validation(count: int = 8, loss: str = "noise", seed: int = 0, log_snr_center: float | None = None) -> Validation:
    denoising = Denoising(SCHEDULE, (1, 28, 28), loss, CPU)
    return Validation(split(count, seed=1), denoising, log_snr_center, seed, ALONE)


def models(count: int) -> list[UNet]:
    """Networks that differ in how much noise they see."""
    found = []
    for index in range(count):
        model = network().eval()
        with torch.no_grad():
            model.head[2].weight *= index + 1  # type: ignore[index, operator]
        found.append(model)
    return found


def trained_loss(model: UNet, held_out: Split, loss: str, seed: int = 0, log_snr_center: float | None = None) -> float:
    """Mean loss that is trained, by hand; of at most 500 images."""
    source = generator(seed, "validation", 0)
    t = draw_timesteps(len(held_out.images), uniform(20), "stratified", source)
    noise = torch.randn(held_out.images.shape, generator=source)
    with torch.no_grad():
        pred_noise = model(SCHEDULE.q_sample(to_float(held_out.images), t, noise), t, held_out.labels)
    errors = (pred_noise - noise).square().mean(dim=(1, 2, 3)).double()
    cdf = timestep_cdf(SCHEDULE, log_snr_center)
    likely = torch.diff(cdf, prepend=torch.zeros(1, dtype=cdf.dtype))[t] * 20  # than all alike
    return float(((errors / SCHEDULE.alphas_cumprod[t] if loss == "v" else errors) * likely).mean())


@pytest.mark.parametrize("center", [None, -1.0])
@pytest.mark.parametrize("loss", ["noise", "v"])
def test_the_loss_that_decides_is_the_one_that_is_trained(loss: str, center: float | None) -> None:
    found = validation(loss=loss, log_snr_center=center)
    (model,) = models(1)
    buckets = found.of(model, 7)
    assert buckets is not None
    assert found.kept is not None
    assert found.kept.step == 7
    assert found.kept.loss == pytest.approx(trained_loss(model, split(8, seed=1), loss, 0, center), rel=1e-5)
    # What is told is always the error of the noise.
    torch.testing.assert_close(buckets, validation(loss="noise").of(model, 0), equal_nan=True)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [2, 1, 0], [1, 0, 2]])
def test_the_lowest_of_all_is_kept_whenever_it_came(order: list[int]) -> None:
    found, networks = validation(), models(3)
    losses = [trained_loss(each, split(8, seed=1), "noise") for each in networks]
    lowest = min(range(3), key=losses.__getitem__)
    assert sorted(set(losses)) == sorted(losses)
    for step, index in enumerate(order):
        found.of(networks[index], step)
    assert found.kept is not None
    assert found.kept.step == order.index(lowest)
    assert found.kept.loss == pytest.approx(losses[lowest], rel=1e-5)
    torch.testing.assert_close(found.kept.weights, weights(networks[lowest]), rtol=0, atol=0)


def test_of_equal_losses_the_first_is_kept_and_it_is_a_copy() -> None:
    found, (model,) = validation(), models(1)
    found.of(model, 1)
    before = weights(model)
    found.of(model, 2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert found.kept is not None
    assert found.kept.step == 1
    torch.testing.assert_close(found.kept.weights, before, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_is_never_kept_before_others() -> None:
    found, (model, other) = validation(), models(2)
    found.of(model, 1)
    with torch.no_grad():
        other.head[2].bias.fill_(torch.nan)  # type: ignore[index, operator, union-attr]
    found.of(other, 2)
    assert found.kept is not None
    assert found.kept.step == 1


def test_a_first_loss_that_is_not_finite_is_not_kept() -> None:
    found, (model, other) = validation(), models(2)
    with torch.no_grad():
        other.head[2].bias.fill_(torch.nan)  # type: ignore[index, operator, union-attr]
    found.of(other, 1)
    assert found.kept is None
    found.of(model, 2)
    assert found.kept is not None
    assert found.kept.step == 2


def test_without_images_nothing_is_kept() -> None:
    found, (model,) = validation(0), models(1)
    assert found.of(model, 1) is None
    assert found.kept is None
    assert found.state() == {}


def test_what_is_kept_survives_in_the_state() -> None:
    found, networks = validation(), models(3)
    for step, model in enumerate(networks[1:]):
        found.of(model, step)
    assert found.kept is not None
    state = {name: value.clone() for name, value in found.state().items()}
    again = validation()
    again.load_state(state | {"weights": torch.zeros(3)})
    assert again.kept is not None
    assert again.kept[:2] == found.kept[:2]
    torch.testing.assert_close(again.kept.weights, found.kept.weights, rtol=0, atol=0)
    torch.testing.assert_close(again.state(), state, rtol=0, atol=0)
    for each in (found, again):
        each.of(networks[0], 9)
    assert found.kept[:2] == again.kept[:2]


def test_a_state_without_what_is_kept_keeps_nothing() -> None:
    again = validation()
    again.load_state({"weights": torch.zeros(3)})
    assert again.kept is None


def spoilt_after(step: int, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """A training whose weights grow wild after a step: its best weights at the end, those of then, and the last."""
    training = new_training(count=200, held_out=8, epochs=3, **changes)
    then: dict[str, Tensor] = {}
    for _ in training.run():
        if training.step == step:
            then = weights(training.model)
        if training.step > step:
            with torch.no_grad():
                for weight in training.network.parameters():
                    weight.add_(1)
    return weights(training.best()), then, weights(training.model)


@pytest.mark.parametrize(("block", "ema_decay"), [("residual", 0.9), ("residual", 0), ("double_conv", 0.9)])
def test_the_best_model_is_that_of_the_lowest_validation_loss(block: str, ema_decay: float) -> None:
    best, then, last = spoilt_after(50, block=block, ema_decay=ema_decay)
    torch.testing.assert_close(best, then, rtol=0, atol=0)
    assert all((last[name] != best[name]).any() for name in best if "weight" in name)


def test_the_best_model_is_another_than_the_one_that_trains() -> None:
    training = finished(held_out=8)
    best = training.best()
    assert best is not training.model
    assert training.validation.kept is not None
    torch.testing.assert_close(weights(best), training.validation.kept.weights, rtol=0, atol=0)
    with torch.no_grad():
        for weight in best.parameters():
            weight.add_(1)
    assert_equal_weights(training.best(), finished(held_out=8).best())


def test_without_held_out_images_the_last_weights_are_the_best() -> None:
    training = finished()
    assert training.best() is not training.model
    assert_equal_weights(training.best(), training.model)


def test_a_run_that_is_cut_off_keeps_the_best_of_before() -> None:
    recipe: dict[str, Any] = {"count": 200, "held_out": 8, "epochs": 3, "lr": 0.3}
    whole = new_training(**recipe)
    states, kept = [], []
    for _ in whole.run():
        states.append(copy.deepcopy(whole.state()))
        kept.append(whole.validation.kept.step if whole.validation.kept else 0)
    assert len(set(kept)) > 1
    for state, step in list(zip(states, kept, strict=True))[45::35]:
        again = new_training(**recipe)
        again.load_state(state)
        assert (again.validation.kept.step if again.validation.kept else 0) == step
        for _ in again.run():
            pass
        assert_equal_weights(again.best(), whole.best())
