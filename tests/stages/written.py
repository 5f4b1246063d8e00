"""Writing what a stage reads, into the folder at hand."""

import contextlib
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.splits import Samples, save_samples, save_split
from ddpm.params.data import DataParams
from ddpm.scores.classifier import Recipe
from exact_stages.commands import write
from exact_stages.params import parse

ROOT = Path(__file__).parents[2]
DATA = {"set": "data/mine", "image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}


def link_code(*files: str) -> None:
    """Link what a stage compares its code with, and further files at the top of the repository."""
    for name in ("src", "stages", *files):
        Path(name).symlink_to(ROOT / name)
    if "dvc.yaml" in files:
        Path("code").symlink_to(Path(_written().name, "code"))


@cache
def _written() -> tempfile.TemporaryDirectory[str]:
    """Write the code of all stages as it is, once."""
    folder = tempfile.TemporaryDirectory()
    with contextlib.chdir(folder.name):
        for name in ("src", "stages", "dvc.yaml", "params.yaml", "constraints.txt"):
            Path(name).symlink_to(ROOT / name)
        write()
    return folder


def data_params(**changes: object) -> DataParams:
    return parse(DataParams, DATA | changes, "params.yaml", "data")


def write_split(name: str, card: DataCard, images: Tensor, labels: Tensor) -> None:
    """A file of data/processed, of images uint8 (N, C, H, W) without near-duplicates."""
    path = Path(f"data/processed/{name}.safetensors")
    counts = labels.bincount(minlength=len(card.classes)).tolist()
    save_split(path, card, labels, torch.arange(len(labels)), counts, [images])


def write_samples(
    name: str, card: DataCard, images: Tensor, labels: Tensor | None, classes: list[int], kept: int = 0
) -> None:
    """A file of data/samples, of images uint8 (N, C, H, W), the first `kept` of which stand for the frames as well."""
    frames = images[:kept, None].repeat(1, len(images), 1, 1, 1)
    made = {"set": name, "sampler": "ddpm", "evaluations": 3, "guidance": 1.0}
    samples = Samples(images.clone(), labels, frames, frames.clone(), card, classes, [*range(kept)], made)
    save_samples(Path(f"data/samples/{name}.safetensors"), samples)


def classifier_params(**changes: object) -> Recipe:
    """Of the smallest classifier, hardly trained."""
    least = {"channels": 2, "images_seen": 1, "epochs": 1, "batch_size": 2, "lr": 0.01, "shift": 0, "seed": 0}
    return Recipe.model_validate(least | changes)
