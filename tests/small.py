"""What many tests begin from: small networks with random weights, images, and states that have been in a file."""

import io
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ddpm.images.card import DataCard
from ddpm.params.model import ModelParams
from ddpm.processes.device import Runtime

CPU = Runtime(torch.device("cpu"), torch.float32)
DIGITS = DataCard(name="mnist", shape=(1, 28, 28), classes=tuple("0123456789"))
FRUITS = DataCard(name="fruits", shape=(3, 16, 8), classes=("apple", "fig", "pear"))  # not square, and in colour
Network = TypeVar("Network", bound=nn.Module)


def unet_params(**changes: object) -> ModelParams:
    """About the smallest network that there is, but for what is changed."""
    smallest = {
        "channels": (4,),
        "time_embed_dim": 4,
        "block": "residual",
        "patch_size": 4,
        "bottleneck_blocks": 1,
        "attention": False,
        "class_conditional": False,
        "prediction": "noise",
    }
    return ModelParams.model_validate(smallest | changes)


def images(count: int = 3, shape: tuple[int, int, int] = DIGITS.shape) -> Tensor:
    """uint8 (count, *shape), of 256 values, black and white among them."""
    found = levels(count, shape)
    found[:, :, :2], found[:, :, 2:4] = 0, 255
    return found


def levels(count: int, shape: tuple[int, ...] = DIGITS.shape, seed: int = 0) -> Tensor:
    """uint8 (count, *shape) of random levels."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=rng, dtype=torch.uint8)


def resaved(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint gives it back."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    found: dict[str, Any] = torch.load(buffer, weights_only=True)
    return found


def randomised(module: Network, seed: int = 0) -> Network:
    """All weights and running statistics away from their starting values, none of them zero."""
    rng = torch.Generator().manual_seed(seed)
    for name, weight in module.state_dict().items():
        if "running_var" in name:
            weight.uniform_(0.5, 1.5, generator=rng)
        elif weight.is_floating_point():
            weight.normal_(0, 0.3, generator=rng)
    return module


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
