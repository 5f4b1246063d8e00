"""The model file: weights, and all that is needed to rebuild model and schedule from the file alone."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ddpm.compute.device import Runtime, to_device
from ddpm.compute.weights import MAX_HEADER, rebuild
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import MAX_CLASSES, DataCard
from ddpm.networks.unet import UNet, UNetParams
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Section, parse

LABELS = "label.weight"  # what a network is told of each class
EARLY = "early."  # before the names of the weights that it had early in its training
MAX_TIMES = 1 << 22  # numbers in the network's table of the times; it stands in memory, and not in the file
MAX_COUNT = 1 << 40  # images of a class: float64 has sums of a thousand such numbers exactly
Guide = Literal["early", "unlabelled"]  # the model as it was early in its training, or as it is when not told the class
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


def check_times(model: UNetParams, schedule: ScheduleParams) -> None:
    """Refuse a network whose table of the times is too large.

    Raises:
        ValueError: the message names both params.
    """
    if schedule.timesteps * model.time_embed_dim > MAX_TIMES:
        raise ValueError(
            f"schedule.timesteps, {schedule.timesteps}, times model.time_embed_dim, {model.time_embed_dim}, "
            f"must be at most {MAX_TIMES}; lower one of them"
        )


class ModelCard(Section):
    """What a model file says of itself."""

    data: DataCard
    model: UNetParams
    schedule: ScheduleParams
    class_counts: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    guides: tuple[Guide, ...] = ()  # what its samples can be guided by; files from before this say nothing of it
    timesteps: tuple[Annotated[int, Field(ge=0)], ...] = ()  # of a distilled model, the only ones that it draws by

    @field_validator("class_counts")
    @classmethod
    def _some(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if not any(counts):
            raise ValueError("no class has an image")
        return counts

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        check_times(self.model, self.schedule)
        if len(self.class_counts) != len(self.data.classes):
            raise ValueError(f"{len(self.class_counts)} class_counts for {len(self.data.classes)} classes")
        if self.model != self.model.for_images(self.data.shape):
            raise ValueError("model: has no channels or patch_size")
        if "unlabelled" in self.guides and not self.model.class_conditional:
            raise ValueError("guides: a network that is told no class is always unlabelled")
        if len({*self.guides}) < len(self.guides):
            raise ValueError("guides: one stands there twice")
        if self.guides and self.timesteps:
            raise ValueError("guides: a distilled model, which has timesteps, has none")
        if list(self.timesteps) != sorted({*self.timesteps}, reverse=True):
            raise ValueError("timesteps: must descend")
        if self.timesteps and self.timesteps[0] != self.schedule.timesteps - 1:
            raise ValueError("timesteps: must begin with the last of the schedule")
        return self

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels of the images that the model was trained on."""
        return tuple(label for label, count in enumerate(self.class_counts) if count)


class LoadedModel(NamedTuple):
    """A network in evaluation mode, its schedule and its card; and the network as it was early in its training."""

    network: UNet
    schedule: NoiseSchedule
    card: ModelCard
    early: UNet | None = None

    def denoiser(self, runtime: Runtime, network: UNet | None = None) -> Denoiser:
        """Wrap the network, or the one given, for the runtime on whose device it is."""
        return Denoiser(network or self.network, self.schedule, self.card.model.prediction, runtime)


def save_model(
    path: Path,
    network: UNet,
    data: DataCard,
    schedule: NoiseSchedule,
    class_counts: tuple[int, ...],
    early: dict[str, Tensor] | None = None,
    unlabelled: bool = False,
    timesteps: tuple[int, ...] = (),
    **facts: Any,
) -> None:
    """Write weights and card as safetensors.

    Args:
        class_counts: how many images of each class there were to train on, held-out ones included.
        early: the weights that it had early in its training, to guide its samples by.
        unlabelled: whether it has learned to draw without being told the class, too.
        timesteps: of a distilled model, those that it draws by.
        facts: anything else worth keeping in the file, JSON-compatible, such as the versions it was trained with.
    """
    known: tuple[tuple[Guide, bool], ...] = (("early", early is not None), ("unlabelled", unlabelled))
    card = ModelCard(
        data=data,
        model=network.params,
        schedule=schedule.params,
        class_counts=class_counts,
        guides=tuple(guide for guide, there in known if there),
        timesteps=timesteps,
    )
    weights = dict(network.state_dict()) | {EARLY + name: weight for name, weight in (early or {}).items()}
    save_arrays(path, weights, {"card": card.model_dump(mode="json"), **facts})


def load_model(path: Path | str, device: torch.device | str = "cpu") -> LoadedModel:
    """Rebuild model and schedule from a model file.

    Raises:
        UserError: the file is missing, damaged, or not a model; or a weight is NaN or infinite.
    """
    path = Path(path)
    weights, metadata = load_arrays(path, max_header=MAX_HEADER)
    if "card" not in metadata:
        raise UserError(f"{path}: not a model file of this project")
    card = parse(ModelCard, metadata["card"], str(path))
    schedule = NoiseSchedule(card.schedule)

    def network(weights: dict[str, Tensor]) -> UNet:
        rebuilt = rebuild(path, lambda: new_network(card.model, card.data, card.schedule), weights)
        return to_device(rebuilt, torch.device(device)).eval()

    early = None
    if "early" in card.guides:
        early = network({name.removeprefix(EARLY): weights.pop(name) for name in [*weights] if name.startswith(EARLY)})
    return LoadedModel(network(weights), schedule, card, early)


def new_network(params: UNetParams, data: DataCard, schedule: ScheduleParams) -> UNet:
    """Make a network for images of this card, with weights from torch's global generator."""
    return UNet(params, data.shape, len(data.classes), schedule.timesteps)


def begin_from(path: Path, network: UNet, data: DataCard, schedule: NoiseSchedule) -> None:
    """Give a new network the weights of a model file, perhaps of other classes.

    A class of a name that the file knows is told to the network as there, any other as the mean of all.

    Raises:
        UserError: the file is no model, or is distilled, or its images, network or noise schedule are others.
    """
    loaded = load_model(path)
    if loaded.card.timesteps:
        few = len(loaded.card.timesteps)
        raise UserError(f"train.start: {path} is distilled to {few} evaluations, and knows no other t; name another")
    before, after = loaded.card, network.params
    facts = {
        "data.image_size and colour": (before.data.shape, data.shape),
        **{f"model.{key}": (value, getattr(after, key)) for key, value in before.model if key != "class_conditional"},
        **{f"schedule.{key}": (value, getattr(schedule.params, key)) for key, value in before.schedule},
    }
    for name, (theirs, ours) in facts.items():
        if theirs != ours:
            raise UserError(f"train.start: {path} is of other {name}, {theirs}, where {ours} is set; make them equal")
    own = network.state_dict()
    network.load_state_dict(own | {name: each for name, each in loaded.network.state_dict().items() if name != LABELS})
    if network.label and loaded.network.label:
        known = loaded.network.label.weight.detach()
        of_name = {before.data.classes[label]: known[label] for label in before.classes}
        mean = torch.stack([*of_name.values()]).mean(0)
        rows = [of_name.get(name, mean) for name in data.classes]
        network.label.weight.data.copy_(torch.stack(rows))
