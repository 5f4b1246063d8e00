"""The model file: write it, load it, start a training from it.

It has weights, and a card from which network and noise schedule are rebuilt.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ddpm.compute.device import MAX_HEADER, Runtime, rebuild, to_device
from ddpm.denoiser import Denoiser
from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.card import MAX_CLASSES, DataCard
from ddpm.schedule import NoiseSchedule, ScheduleParams
from ddpm.unet import UNet, UNetParams
from exact_stages.console import UserError
from exact_stages.params import Section, parse

LABELS = "label.weight"  # the class embedding
GUIDE = "guide."  # prefix of the weights from early in the training
MAX_TIMES = 1 << 22  # numbers in the time embedding table, which is rebuilt in memory
MAX_COUNT = 1 << 40  # images of a class, or of a training; float64 sums a thousand such counts exactly
Guide = Literal["autoguidance", "classifier_free"]  # by weights from early in training, or by the model without labels
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


def check_times(model: UNetParams, schedule: ScheduleParams) -> None:
    """Refuse a network with too large a time embedding table.

    Raises:
        ValueError: the message names both params.
    """
    if schedule.timesteps * model.time_embed_dim > MAX_TIMES:
        raise ValueError(
            f"schedule.timesteps ({schedule.timesteps}) times model.time_embed_dim ({model.time_embed_dim}) "
            f"must be at most {MAX_TIMES}; lower one of them"
        )


class ModelCard(Section):
    """The metadata of a model file."""

    data: DataCard
    model: UNetParams
    schedule: ScheduleParams
    class_counts: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_CLASSES)]  # in training
    guides: tuple[Guide, ...] = ()  # how its samples can be guided; absent in older files
    images_seen: Count | None = None  # in training, counting repeats; absent in older files
    faint: Annotated[int, Field(ge=0, le=254)] = 0  # the highest level that becomes 0 in samples; absent in older files
    timesteps: tuple[Annotated[int, Field(ge=0)], ...] = ()  # of a distilled model: it samples at no others

    @field_validator("class_counts")
    @classmethod
    def _some(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if not any(counts):
            raise ValueError("must count at least one image")
        return counts

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        check_times(self.model, self.schedule)
        if len(self.class_counts) != len(self.data.classes):
            raise ValueError(f"{len(self.class_counts)} class_counts for {len(self.data.classes)} classes")
        if self.model != self.model.for_images(self.data.shape):
            raise ValueError("model: channels and patch_size must be set")
        if "classifier_free" in self.guides and not self.model.class_conditional:
            raise ValueError("guides: classifier_free needs a class-conditional network")
        if len({*self.guides}) < len(self.guides):
            raise ValueError("guides: must not repeat")
        if self.guides and self.timesteps:
            raise ValueError("guides: a distilled model, with timesteps, must have none")
        if list(self.timesteps) != sorted({*self.timesteps}, reverse=True):
            raise ValueError("timesteps: must descend")
        if self.timesteps and self.timesteps[0] != self.schedule.timesteps - 1:
            raise ValueError("timesteps: must begin with the last of the schedule")
        return self

    @property
    def classes(self) -> tuple[int, ...]:
        """Return the labels of the classes that the model was trained on."""
        return tuple(label for label, count in enumerate(self.class_counts) if count)


class LoadedModel(NamedTuple):
    """A network in evaluation mode, its schedule, its card, and its guide for autoguidance, if any."""

    network: UNet
    schedule: NoiseSchedule
    card: ModelCard
    guide: UNet | None = None

    def denoiser(self, runtime: Runtime, network: UNet | None = None) -> Denoiser:
        """Wrap the network, or the given one, in a denoiser; it must be on the runtime's device."""
        return Denoiser(network or self.network, self.schedule, self.card.model.prediction, runtime)


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
    schedule = NoiseSchedule(card.schedule)

    shape = card.data.shape, len(card.data.classes), card.schedule.timesteps

    def network(weights: dict[str, Tensor]) -> UNet:
        rebuilt = rebuild(path, lambda: UNet(card.model, *shape), weights)
        return to_device(rebuilt, torch.device(device)).eval()

    guide = None
    if "autoguidance" in card.guides:
        guide = network({name.removeprefix(GUIDE): weights.pop(name) for name in [*weights] if name.startswith(GUIDE)})
    return LoadedModel(network(weights), schedule, card, guide)


def differences(
    card: ModelCard, network: UNetParams, data: DataCard, schedule: ScheduleParams
) -> dict[str, tuple[Any, Any]]:
    """Return the params by which a network cannot take the weights of a model: the model's value and the network's."""
    facts = {
        "data.colour": (card.data.shape[0] > 1, data.shape[0] > 1),
        **{f"model.{key}": (value, getattr(network, key)) for key, value in card.model if key != "class_conditional"},
        **{f"schedule.{key}": (value, getattr(schedule, key)) for key, value in card.schedule},
    }
    return {name: (theirs, ours) for name, (theirs, ours) in facts.items() if theirs != ours}


def begin_from(path: Path, network: UNet, data: DataCard, schedule: ScheduleParams) -> None:
    """Initialise a network with the weights of a model file; classes and the size of the images may differ.

    Classes are matched by name. A class that the file lacks keeps the network's own random embedding: classes that
    begin alike stay alike for hundreds of steps.

    Raises:
        UserError: the file is not a model, or is distilled; or its colour, network or noise schedule differ.
    """
    loaded = load_model(path)
    before = loaded.card
    if before.timesteps:
        few = len(before.timesteps)
        raise UserError(f"train.fine_tune_from: {path} is distilled to {few} evaluations; name one that is not")
    for name, (theirs, ours) in differences(before, network.params, data, schedule).items():
        raise UserError(f"train.fine_tune_from: {path} has {name} {theirs}, where {ours} is set; make them equal")
    own = network.state_dict()
    network.load_state_dict(own | {name: each for name, each in loaded.network.state_dict().items() if name != LABELS})
    if network.label and loaded.network.label:
        known = loaded.network.label.weight.detach()
        of_name = {before.data.classes[label]: known[label] for label in before.classes}
        for row, name in zip(network.label.weight.data, data.classes, strict=True):
            row.copy_(of_name.get(name, row))
