"""Start training runs on noise, because speed does not depend on content, and load the model that a run saves."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from ddpm.compute.device import Runtime, to_device
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard
from ddpm.images.splits import Split
from ddpm.networks.checkpoint import LoadedModel, ModelCard, load_model, new_network
from ddpm.pipeline.params import parse, read_yaml
from ddpm.training.loop import EpochEnd, Training
from ddpm.training.running import save_trained
from ddpm.training.setup import Setup, new_training
from stages.train import Params

NOISE = DataCard(name="noise", shape=(1, 28, 28), classes=tuple("0123456789"))  # of MNIST's shape
WITHOUT_END = 1e6  # epochs
ARTICLE = Path("results/plain_ddpm/params.yaml")  # as `make plain` ran it


def article_params() -> Params:
    """Return the params of `make plain`, but no guide or removed params; added ones have their default."""
    now, then = read_yaml(Path("params.yaml")), read_yaml(ARTICLE)
    sections = {name: {key: then[name].get(key, now[name][key]) for key in now[name]} for name in Params.model_fields}
    sections["train"] |= {"images": None, "guide_share": 0, "target_images": 0}
    return parse(Params, sections, str(ARTICLE))


def on_noise(params: Params, count: int, runtime: Runtime, data: DataCard = NOISE) -> Training:
    """Start an endless training on `count` images as the data card describes them, none held out."""
    images = Split(
        torch.randint(256, (count, *data.shape), dtype=torch.uint8), torch.randint(len(data.classes), (count,))
    )
    counts = tuple(images.labels.bincount(minlength=len(data.classes)).tolist())
    train = params.train.model_copy(update={"images": None, "epochs": WITHOUT_END, "validation": 0.0})
    train = train.for_images(count, data.shape)
    setup = Setup(data, images, images.take(slice(0)), counts, params.model.for_images(data.shape), train)
    return new_training(setup, params.schedule, None, runtime)


def gradient_steps(training: Training) -> Iterator[object]:
    """Yield the events of the gradient steps of a run."""
    return (event for event in training.run() if not isinstance(event, EpochEnd))


def untrained(params: Params, runtime: Runtime) -> LoadedModel:
    """Return a model and its guide, both with initial weights."""
    schedule = NoiseSchedule(params.schedule)
    networks = (new_network(params.model.for_images(NOISE.shape), NOISE, params.schedule) for _ in range(2))
    model, guide = (to_device(each, runtime.device).eval() for each in networks)
    counts = (1,) * len(NOISE.classes)
    card = ModelCard(
        data=NOISE, model=model.params, schedule=params.schedule, class_counts=counts, guides=("autoguidance",)
    )
    return LoadedModel(model, schedule, card, guide)


def left_by(training: Training, setup: Setup, schedule: ScheduleParams) -> LoadedModel:
    """Return the model that a training saves, with its guides, through a file as stage `train` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_trained(path, training, setup, schedule, {})
        return load_model(path, training.runtime.device)
