"""Small trainings of which all is known, for tests."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser, PredictionKind
from ddpm.diffusion.model import new_network
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.diffusion.shards import shards_on_cpu
from ddpm.diffusion.training import Training
from ddpm.diffusion.unet import UNet
from ddpm.images.splits import Split
from ddpm.params.model import ModelParams
from ddpm.params.schedule import ScheduleParams
from ddpm.params.train import TrainParams
from tests.small import CPU, DIGITS, resaved, unet_params

LINEAR = ScheduleParams(timesteps=20, beta_start=0.01, beta_end=0.5)
SCHEDULE = NoiseSchedule(linear_betas(**dict(LINEAR)))
RECIPE = {
    "images_seen": None,
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
    "target_images": 0,
    "classes": "all",
    "label_dropout": 0.0,
    "guide_share": 0.0,
    "flip": False,
    "fine_tune_from": "data/scratch",
    "validation": 0,
    "log_every": 1,
    "seed": 0,
}


def recipe(**changes: object) -> TrainParams:
    return TrainParams.model_validate({**RECIPE, **changes})


def split(count: int, seed: int = 0) -> Split:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 28, 28), generator=rng, dtype=torch.uint8)
    return Split(images, torch.randint(10, (count,), generator=rng))


def network(params: ModelParams) -> UNet:
    """A network for DIGITS, always with the same weights, none of the layers zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_network(params, DIGITS.shape, len(DIGITS.classes), SCHEDULE.timesteps)
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.1)
    return model


def small_training(
    count: int = 16,
    held_out: int = 0,
    model: UNet | None = None,
    shards: int | None = None,
    **changes: object,
) -> Training:
    """Of 8 steps in 2 epochs, but for what is changed; the held-out images follow those of the training.

    Changes are of the network, class-conditional but for them, and of the recipe.
    """
    of_model = {name: changes.pop(name) for name in [*changes] if name in ModelParams.model_fields}
    kind, params = unet_params(**{"class_conditional": True, **of_model}), recipe(**changes)
    model = model or network(kind)
    shards = shards or shards_on_cpu(kind.block, params.batch_size)
    images = Split(*map(torch.cat, zip(split(count), split(held_out, seed=1), strict=True)))
    rows = torch.arange(count + held_out).split([count, held_out])
    return Training(model, DIGITS, LINEAR, kind, images, *rows, params, CPU, shards)


def finished(**changes: Any) -> Training:
    training = small_training(**changes)
    list(training.run())
    return training


def stopped(step: int, **changes: Any) -> Training:
    training = small_training(**changes)
    next(each for each in training.run() if training.step == step)
    return training


def one_step(training: Training, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Take a step on the batch of these rows, by default the first four; t and the loss of every image."""
    (found,) = training.loop([training.batches.batch(torch.arange(4) if rows is None else rows, training.step)])
    return found


def recorded(of: object, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], Any]]:
    """A list that grows by arguments and result with every call of a function of an object."""
    calls, function = [], getattr(of, name)

    def call(*given: Any) -> Any:
        calls.append((given, function(*given)))
        return calls[-1][1]

    monkeypatch.setattr(of, name, call)
    return calls


def state_of(training: Training) -> dict[str, Any]:
    """All that changes, as numbers and tensors that stay what they are."""
    state = resaved(training.state_dict())
    rows = {name: [[*map(float, row)] for row in rows] for name, rows in state["curves"]["rows"].items()}
    trail = {step: int(found, 16) for step, found in state["trail"].items()}
    return state | {"curves": state["curves"] | {"rows": rows}, "trail": trail}


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_equal(left: Any, right: Any) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def denoiser(network: UNet, prediction: PredictionKind = "noise") -> Denoiser:
    return Denoiser(network, SCHEDULE, prediction)
