"""Small trainings of which all is known, for tests."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.denoiser import Denoiser
from ddpm.images.splits import Split
from ddpm.model import new_network
from ddpm.parallel.world import ALONE, World
from ddpm.schedule import NoiseSchedule, ScheduleParams
from ddpm.train import EpochEnd, LossPoint, Training, TrainParams
from ddpm.unet import UNet
from tests.small import CPU, DIGITS, unet_params

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.01, beta_end=0.5))
RECIPE = {
    "images": None,
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adam",
    "lr": 0.01,
    "lr_decay": "none",
    "warmup_steps": 0,
    "ema_decay": 0.9,
    "loss": "noise",
    "timestep_sampling": "stratified",
    "log_snr_center": None,
    "log_snr_uniform": 0.0,
    "target_images": 0,
    "classes": "all",
    "label_dropout": 0.0,
    "guide_share": 0.0,
    "flip": False,
    "start": "data/processed/train.safetensors",
    "validation": 0,
    "patience": 1,
    "log_every": 1,
    "seed": 0,
}


def split(count: int, seed: int = 0) -> Split:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 28, 28), generator=rng, dtype=torch.uint8)
    return Split(images, torch.randint(10, (count,), generator=rng))


def network(
    block: str = "residual", channels: int = 4, prediction: str = "noise", class_conditional: bool = True
) -> UNet:
    """A fresh network, always with the same weights, none of the layers zero."""
    params = unet_params(channels=(channels,), block=block, class_conditional=class_conditional, prediction=prediction)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_network(params, DIGITS, SCHEDULE.params)
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.1)
    return model


def recipe(**changes: object) -> TrainParams:
    return TrainParams.model_validate({**RECIPE, **changes})


def new_training(
    count: int = 16,
    held_out: int = 0,
    model: UNet | None = None,
    block: str = "residual",
    world: World = ALONE,
    **changes: object,
) -> Training:
    """Of 8 steps in 2 epochs, but for what is changed."""
    model = model or network(block)
    images = split(count), split(held_out, seed=1)
    return Training(model, DIGITS, SCHEDULE, *images, recipe(**changes), CPU, world)


def finished(**changes: Any) -> Training:
    training = new_training(**changes)
    for _ in training.run():
        pass
    return training


def stopped(step: int, **changes: Any) -> Training:
    """A training that has taken so many steps, and no more."""
    training = new_training(**changes)
    for event in training.run():
        if training.step == step:
            return training
    raise AssertionError(f"there is no step {step}")


def ends(training: Training) -> list[EpochEnd]:
    return [event for event in training.run() if isinstance(event, EpochEnd)]


def losses(training: Training) -> list[float]:
    return [event.loss for event in training.run() if isinstance(event, LossPoint)]


def recorded(of: object, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], Any]]:
    """A list that grows by arguments and result with every call of a function of an object."""
    calls, function = [], getattr(of, name)

    def call(*given: Any) -> Any:
        calls.append((given, function(*given)))
        return calls[-1][1]

    monkeypatch.setattr(of, name, call)
    return calls


def validated(training: Training) -> Tensor:
    """The loss on the held-out images, by bucket, as the training would tell it now."""
    found = training.validation.of(training.ema_denoiser, training.model.eval(), training.step)
    training.network.train()
    assert found is not None
    return found


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_equal(left: Any, right: Any) -> None:
    """Of equal bits, nan among them."""
    torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def assert_equal_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    assert_equal(weights(left), weights(right))


def denoiser(network: UNet) -> Denoiser:
    return Denoiser(network, SCHEDULE, network.params.prediction, CPU)


def uniform(timesteps: int) -> Tensor:
    return torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
