"""What many tests begin from: params of small networks, and images."""

import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.networks.unet import UNetParams

DIGITS = DataCard(name="mnist", shape=(1, 28, 28), classes=tuple("0123456789"))
FRUITS = DataCard(name="fruits", shape=(3, 16, 8), classes=("apple", "fig", "pear"))  # not square, and in colour


def unet_params(**changes: object) -> UNetParams:
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
    return UNetParams.model_validate(smallest | changes)


def images(count: int = 3, shape: tuple[int, int, int] = DIGITS.shape) -> Tensor:
    """uint8 (count, *shape), of 256 values, black and white among them."""
    levels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    levels[:, :, :2], levels[:, :, 2:4] = 0, 255
    return levels
