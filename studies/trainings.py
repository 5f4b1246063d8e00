"""Train as the stage `train` does, on images or on noise, and read the params of the workspace."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ddpm.compute.device import Runtime, to_device
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.images.card import DataCard
from ddpm.images.splits import Processed, Split
from ddpm.networks.checkpoint import LoadedModel, ModelCard, load_model, new_network
from ddpm.pipeline.console import progress
from ddpm.pipeline.params import parse, read_yaml
from ddpm.sampling.samplers import SamplerParams
from ddpm.training.loop import EpochEnd, Training
from ddpm.training.running import save_trained
from ddpm.training.setup import Setup, new_training, prepare
from stages.train import TRAIN, Params

NOISE = DataCard(name="noise", shape=(1, 28, 28), classes=tuple("0123456789"))  # of MNIST's shape
WITHOUT_END = 1e6  # epochs
PARAMS, PLAIN = Path("params.yaml"), Path("results/article/params.yaml")


def plain_params() -> Params:
    """Return the params of the plain DDPM, but no guide or removed params; added ones have their default."""
    now, then = read_yaml(PARAMS), read_yaml(PLAIN)
    sections = {name: {key: then[name].get(key, now[name][key]) for key in now[name]} for name in Params.model_fields}
    sections["train"] |= {"images": None, "guide_share": 0, "target_images": 0}
    return parse(Params, sections, str(PLAIN))


def population_sampler(**changes: Any) -> SamplerParams:
    """Return how params.yaml samples the population, with changes."""
    section = read_yaml(PARAMS)["sample"]
    values = section | section["population"] | changes
    return parse(SamplerParams, {key: values[key] for key in SamplerParams.model_fields}, "sample.population")


def train_model(path: Path, images: Processed, params: Params, runtime: Runtime, name: str) -> Training:
    """Train to the end, under a progress bar if `name` is given, and write the model file; return the training."""
    setup, start = prepare(images, params.model, params.train), Path(params.train.start)
    training = new_training(setup, params.schedule, None if start == TRAIN else start, runtime)
    for _ in progress(gradient_steps(training), desc=name, total=training.total_steps, unit="step", disable=not name):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    save_trained(path, training, setup, params.schedule, {})
    return training


def trained(images: Processed, params: Params, runtime: Runtime, name: str) -> tuple[LoadedModel, Training]:
    """Train likewise; return the model as it is read from its file, and the training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        training = train_model(path, images, params, runtime, name)
        return load_model(path, runtime.device), training


def on_noise(params: Params, count: int, runtime: Runtime, data: DataCard = NOISE) -> Training:
    """Start an endless training on `count` images of noise, since speed does not depend on content; none held out."""
    labels = torch.randint(len(data.classes), (count,))
    images = Split(torch.randint(256, (count, *data.shape), dtype=torch.uint8), labels)
    counts = tuple(labels.bincount(minlength=len(data.classes)).tolist())
    train = params.train.model_copy(update={"images": None, "epochs": WITHOUT_END, "validation": 0.0})
    train = train.for_images(count, data.shape)
    setup = Setup(data, images, images.take(slice(0)), counts, params.model.for_images(data.shape), train)
    return new_training(setup, params.schedule, None, runtime)


def gradient_steps(training: Training) -> Iterator[object]:
    """Yield the events of the gradient steps of a run."""
    return (event for event in training.run() if not isinstance(event, EpochEnd))


def untrained(params: Params, runtime: Runtime) -> LoadedModel:
    """Return a model and its guide, both with initial weights."""
    schedule, counts = NoiseSchedule(params.schedule), (1,) * len(NOISE.classes)
    networks = (new_network(params.model.for_images(NOISE.shape), NOISE, params.schedule) for _ in range(2))
    model, guide = (to_device(each, runtime.device).eval() for each in networks)
    card = ModelCard(
        data=NOISE, model=model.params, schedule=params.schedule, class_counts=counts, guides=("autoguidance",)
    )
    return LoadedModel(model, schedule, card, guide)
