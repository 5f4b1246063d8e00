"""Small trainings of which all is known, for tests."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.splits import Split
from ddpm.networks.unet import UNet
from ddpm.training.loop import Training
from ddpm.training.recipe import TrainParams
from tests.small import DIGITS, unet_params

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.01, beta_end=0.5))
CPU = Runtime(torch.device("cpu"), torch.float32)
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
    "classes": "all",
    "class_balance": 0.0,
    "label_dropout": 0.0,
    "early": 0.0,
    "flip": False,
    "start": "data/processed/train.safetensors",
    "validation": 0,
    "log_every": 1,
    "seed": 0,
}


def split(count: int, seed: int = 0) -> Split:
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 28, 28), generator=source, dtype=torch.uint8)
    return Split(images, torch.randint(10, (count,), generator=source))


def network(
    block: str = "residual", channels: int = 4, prediction: str = "noise", class_conditional: bool = True
) -> UNet:
    """A fresh network, always with the same weights, none of the layers zero."""
    params = unet_params(channels=(channels,), block=block, class_conditional=class_conditional, prediction=prediction)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(params, SCHEDULE, DIGITS)
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.1)
    return model


def new_training(
    count: int = 16, held_out: int = 0, model: UNet | None = None, block: str = "residual", **changes: object
) -> Training:
    params = TrainParams.model_validate({**RECIPE, **changes})
    return Training(model or network(block), SCHEDULE, split(count), split(held_out, seed=1), params, CPU)


def finished(**changes: Any) -> Training:
    training = new_training(**changes)
    for _ in training.run():
        pass
    return training


def given_to(training: Training, share: Split, monkeypatch: pytest.MonkeyPatch) -> Split:
    """What the network's loss is computed of when a step takes this batch."""
    seen: list[Split] = []
    errors = training.gradient_step.denoising.errors

    def record(model: torch.nn.Module, batch: Split, t: Tensor, noise: Tensor) -> Tensor:
        seen.append(batch)
        return errors(model, batch, t, noise)

    with monkeypatch.context() as patched:
        patched.setattr(training.gradient_step.denoising, "errors", record)
        training.gradient_step(share)
    (found,) = seen
    return found


def validated(training: Training) -> Tensor:
    """The loss on the held-out images, by bucket, as the training would tell it now."""
    losses = training.validation.of(training.model.eval(), training.step)
    training.network.train()
    assert losses is not None
    return losses


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_equal_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    torch.testing.assert_close(weights(left), weights(right), rtol=0, atol=0)


def record_steps(training: Training, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Split, Tensor, Tensor]]:
    """A list that grows by (share, t, losses) with every step."""
    steps = []
    original = training.gradient_step

    def step(share: Split) -> tuple[Tensor, Tensor]:
        t, losses = original(share)
        steps.append((share, t, losses))
        return t, losses

    monkeypatch.setattr(training, "gradient_step", step)
    return steps


def uniform(timesteps: int) -> Tensor:
    return torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
