"""The model file: write it, load it, start a training from it.

It has weights, and a card from which network and noise schedule are rebuilt.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.diffusion.unet import UNet
from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.card import DataCard, Shape
from ddpm.images.starts import CHOSEN, CLIP_ART, NONE, SCRATCH
from ddpm.params.card import ModelCard
from ddpm.params.model import ModelParams
from ddpm.params.schedule import ScheduleParams
from ddpm.processes.device import MAX_HEADER, Runtime, rebuild, to_device
from exact_stages.console import UserError
from exact_stages.params import parse

LABELS = "label.weight"  # the class embedding
GUIDE = "guide."  # prefix of the weights from early in the training


class LoadedModel(NamedTuple):
    """A network in evaluation mode, its schedule, its card, and its guide for autoguidance, if any."""

    network: UNet
    schedule: NoiseSchedule
    card: ModelCard
    guide: UNet | None = None

    def denoiser(self, runtime: Runtime, network: UNet | None = None) -> Denoiser:
        """Wrap the network, or the given one, in a denoiser; it must be on the runtime's device."""
        prediction = self.card.model.prediction
        return Denoiser(network or self.network, self.schedule, prediction, runtime.device, runtime.precision)


def new_network(params: ModelParams, shape: Shape, classes: int, timesteps: int) -> UNet:
    """Return the network that params describe, for images of this shape; its weights are random.

    Raises:
        ValueError: the levels do not divide the images, see `ModelParams.for_images`.
    """
    params = params.for_images(shape)
    conditioned = classes if params.class_conditional else 0
    kind = {key: value for key, value in params if key not in ("class_conditional", "prediction")}
    return UNet(shape, timesteps, conditioned, **kind)


def save_model(
    path: Path, network: UNet, card: ModelCard, guide: dict[str, Tensor] | None = None, **facts: Any
) -> None:
    """Write weights and card as safetensors.

    Args:
        guide: weights from early in the training; the card's guides have "autoguidance" with them.
        facts: other JSON-compatible metadata, such as the versions of the training.
    """
    weights = dict(network.state_dict()) | {GUIDE + name: weight for name, weight in (guide or {}).items()}
    save_arrays(path, weights, {"card": card.model_dump(mode="json"), **facts})


def load_model(path: Path | str, device: torch.device | str = "cpu") -> LoadedModel:
    """Load network, schedule and card from a model file. Weights may be float16, as in the pretrained models.

    Raises:
        UserError: the file is missing, damaged, or not a model; or a weight is NaN or infinite.
    """
    path = Path(path)
    stored, metadata = load_arrays(path, max_header=MAX_HEADER)
    weights = {name: each.float() if each.dtype is torch.float16 else each for name, each in stored.items()}
    if "card" not in metadata:
        raise UserError(f"{path}: not a model file of this project; name another")
    card = parse(ModelCard, metadata["card"], str(path))
    schedule = NoiseSchedule(linear_betas(**dict(card.schedule)))
    shape = card.data.shape, len(card.data.classes), card.schedule.timesteps

    def network(weights: dict[str, Tensor]) -> UNet:
        rebuilt = rebuild(path, lambda: new_network(card.model, *shape), weights)
        return to_device(rebuilt, torch.device(device)).eval()

    guide = None
    if "autoguidance" in card.guides:
        guide = network({name.removeprefix(GUIDE): weights.pop(name) for name in [*weights] if name.startswith(GUIDE)})
    return LoadedModel(network(weights), schedule, card, guide)


def differences(
    card: ModelCard, model: ModelParams, data: DataCard, schedule: ScheduleParams
) -> dict[str, tuple[Any, Any]]:
    """Return the params by which a network cannot take the weights of a model: the model's value and the network's."""
    facts = {
        "data.colour": (card.data.shape[0] > 1, data.shape[0] > 1),
        **{f"model.{key}": (value, getattr(model, key)) for key, value in card.model if key != "class_conditional"},
        **{f"schedule.{key}": (value, getattr(schedule, key)) for key, value in card.schedule},
    }
    return {name: (theirs, ours) for name, (theirs, ours) in facts.items() if theirs != ours}


def chosen_start(model: ModelParams, data: DataCard, schedule: ScheduleParams) -> tuple[str, str]:
    """Return what `preprocess` chose to begin with; or SCRATCH, and a note, if it does not fit the network."""
    if Path(CHOSEN).read_bytes() == NONE:
        return SCRATCH, ""
    for name, (theirs, ours) in differences(load_model(CHOSEN).card, model, data, schedule).items():
        fits = "it fits the default network at data.image_size=32"
        return SCRATCH, f"train.fine_tune_from: {SCRATCH}, since {CLIP_ART} has {name} {theirs}, not {ours}; {fits}"
    return CLIP_ART, ""


def begin_from(path: Path, network: UNet, model: ModelParams, data: DataCard, schedule: ScheduleParams) -> None:
    """Initialise a network with the weights of a model file; classes and the size of the images may differ.

    Classes are matched by name. A class that the file lacks keeps the network's own random embedding: classes that
    begin alike stay alike for hundreds of steps.

    Raises:
        UserError: the file is not a model, or is distilled; or its colour, network or noise schedule differ.
    """
    try:
        loaded = load_model(path)
    except UserError as error:
        raise UserError(f"train.fine_tune_from: {error}; {SCRATCH} is to train from scratch") from None
    before = loaded.card
    if before.timesteps:
        few = len(before.timesteps)
        raise UserError(f"train.fine_tune_from: {path} is distilled to {few} evaluations; name one that is not")
    for name, (theirs, ours) in differences(before, model, data, schedule).items():
        raise UserError(f"train.fine_tune_from: {path} has {name} {theirs}, where {ours} is set; make them equal")
    own = network.state_dict()
    network.load_state_dict(own | {name: each for name, each in loaded.network.state_dict().items() if name != LABELS})
    if network.label and loaded.network.label:
        known = loaded.network.label.weight.detach()
        of_name = {before.data.classes[label]: known[label] for label in before.classes}
        for row, name in zip(network.label.weight.data, data.classes, strict=True):
            row.copy_(of_name.get(name, row))
