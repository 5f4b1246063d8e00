"""Trained models that come with the package: float16 weights, and facts about them in a JSON file of the same name."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch

from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError, shown

FOLDER = resources.files("ddpm.pretrained")
SUFFIX = ".safetensors"


def names() -> list[str]:
    """Return the names of the models."""
    return sorted(each.name.removesuffix(SUFFIX) for each in FOLDER.iterdir() if each.name.endswith(SUFFIX))


def load_pretrained(name: str, device: torch.device | str = "cpu") -> LoadedModel:
    """Load a model by its name, in float32.

    Raises:
        UserError: there is no such model, or its file is damaged.
    """
    with unpacked(name) as path:
        return load_model(path, device)


@contextmanager
def unpacked(name: str) -> Iterator[Path]:
    """Write a model to a temporary float32 model file, and yield its path; equal weights give equal bytes.

    Raises:
        UserError: there is no such model, or its file is damaged.
    """
    with resources.as_file(FOLDER.joinpath(_known(name) + SUFFIX)) as packed:
        weights, metadata = load_arrays(packed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name + SUFFIX)
        whole = {key: each.float() if each.is_floating_point() else each for key, each in weights.items()}
        save_arrays(path, whole, metadata)
        yield path


def _known(name: str) -> str:
    """Check that a model of this name exists."""
    if name not in names():
        raise UserError(f"--pretrained {shown(name, 100)}: no such model; choose from {', '.join(names()) or 'none'}")
    return name
