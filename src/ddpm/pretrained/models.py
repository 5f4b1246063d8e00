"""Trained models that come with the package: float16 weights, and facts about them in a JSON file of the same name."""

from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path

import torch

from ddpm.diffusion.model import LoadedModel, load_model
from exact_stages.console import UserError, shown

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
    with packed(name) as path:
        return load_model(path, device)


def packed(name: str) -> AbstractContextManager[Path]:
    """Return a context with the path of a model's file; raise UserError if there is no such model."""
    if name not in names():
        raise UserError(f"--pretrained {shown(name, 100)}: no such model; choose from {', '.join(names()) or 'none'}")
    return resources.as_file(FOLDER.joinpath(name + SUFFIX))
