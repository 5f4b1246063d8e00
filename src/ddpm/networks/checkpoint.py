"""The model file: weights, and all that is needed to rebuild model and schedule from the file alone."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, NonNegativeInt

from ddpm.data.labels import CLASSES
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.unet import UNet, UNetParams
from ddpm.networks.weights import rebuild
from ddpm.runtime.arrays import load_arrays, save_arrays
from ddpm.runtime.console import UserError
from ddpm.runtime.device import to_device
from ddpm.runtime.params import Section, parse


class ModelCard(Section):
    """What a model file says of itself."""

    model: UNetParams
    schedule: ScheduleParams
    class_counts: Annotated[tuple[NonNegativeInt, ...], Field(min_length=CLASSES, max_length=CLASSES)]

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels of the images that the model was trained on."""
        return tuple(label for label, count in enumerate(self.class_counts) if count)


class LoadedModel(NamedTuple):
    """A denoiser in evaluation mode, its schedule and its card."""

    model: UNet
    schedule: NoiseSchedule
    card: ModelCard


def save_model(path: Path, model: UNet, schedule: NoiseSchedule, class_counts: tuple[int, ...], **facts: Any) -> None:
    """Write weights and card as safetensors.

    Args:
        class_counts: how many images of each class there were to train on, held-out ones included.
        facts: anything else worth keeping in the file, JSON-compatible, such as the versions it was trained with.
    """
    card = ModelCard(model=model.params, schedule=schedule.params, class_counts=class_counts)
    weights = dict(model.state_dict())
    save_arrays(path, weights, {"card": card.model_dump(mode="json"), **facts})


def load_model(path: Path | str, device: torch.device | str = "cpu") -> LoadedModel:
    """Rebuild model and schedule from a model file.

    Raises:
        UserError: the file is missing, damaged, or not a model.
    """
    path = Path(path)
    weights, metadata = load_arrays(path)
    if "card" not in metadata:
        raise UserError(f"{path}: not a model file of this project")
    card = parse(ModelCard, metadata["card"], str(path))
    schedule = NoiseSchedule(card.schedule)
    model = rebuild(path, lambda: UNet(card.model, schedule), weights)
    return LoadedModel(to_device(model, torch.device(device)).eval(), schedule, card)
