"""Train as the stage `train` does, on images or on noise, and read the params of the workspace."""

from pathlib import Path
from typing import Any

import torch

from ddpm.diffusion.model import LoadedModel, new_network
from ddpm.diffusion.training import Training, new_training
from ddpm.diffusion.unet import UNet
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, SplitFile
from ddpm.images.starts import CHOSEN, SCRATCH
from ddpm.params.sample import SamplerParams
from ddpm.processes.device import Runtime
from exact_stages.console import progress
from exact_stages.files import read_yaml
from exact_stages.params import load_params, parse
from stages.train import Params
from studies.trials import kept

NOISE = DataCard(name="noise", shape=(1, 28, 28), classes=tuple("0123456789"))  # of MNIST's shape
WITHOUT_END = 1e6  # epochs
PARAMS, PLAIN = Path("params.yaml"), Path("results/plain_ddpm/params.yaml")


def default_params() -> Params:
    """Return the params of the workspace, but no start that was chosen for its images."""
    params = load_params(Params)
    if params.train.fine_tune_from != CHOSEN:
        return params
    return params.model_copy(update={"train": params.train.model_copy(update={"fine_tune_from": SCRATCH})})


def plain_params() -> Params:
    """Return the params of the plain DDPM, but no guide or removed params; added ones have their default."""
    now, then = read_yaml(PARAMS), read_yaml(PLAIN)
    sections = {name: {key: then[name].get(key, now[name][key]) for key in now[name]} for name in Params.model_fields}
    sections["train"] |= {"images_seen": None, "guide_share": 0, "target_images": 0, "fine_tune_from": SCRATCH}
    return parse(Params, sections, str(PLAIN))


def scored_sampler(**changes: Any) -> SamplerParams:
    """Return how params.yaml samples the set `scored`, with changes."""
    section = read_yaml(PARAMS)["sample"]
    values = section | section["scored"] | changes
    return parse(SamplerParams, {key: values[key] for key in SamplerParams.model_fields}, "sample.scored")


def trained(images: SplitFile, params: Params, runtime: Runtime, name: str) -> tuple[LoadedModel, Training]:
    """Train to the end, with a progress bar if there is a `name`. Return the model of its file, and the training."""
    training = new_training(images, params.schedule, params.model, params.train, runtime)
    for _ in progress(training.run(), desc=name, total=training.total_steps, unit="step", disable=not name):
        pass
    return kept(training, runtime), training


def on_noise(params: Params, count: int, runtime: Runtime, data: DataCard = NOISE) -> Training:
    """Start an endless training on `count` images of noise, since speed does not depend on content; none held out."""
    labels = torch.randint(len(data.classes), (count,))
    images = Split(torch.randint(256, (count, *data.shape), dtype=torch.uint8), labels)
    train = params.train.model_copy(update={"images_seen": None, "epochs": WITHOUT_END, "validation": 0.0})
    train, rows = train.for_images(count, data.shape), torch.arange(count)
    model = params.model.for_images(data.shape)
    return Training(random_network(params, data), data, params.schedule, model, images, rows, rows[:0], train, runtime)


def random_network(params: Params, data: DataCard = NOISE) -> UNet:
    """Build a network with random weights."""
    return new_network(params.model, data.shape, len(data.classes), params.schedule.timesteps)
