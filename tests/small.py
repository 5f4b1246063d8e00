"""What many tests begin from: params of small networks, and images."""

import torch
from torch import Tensor

from ddpm.networks.unet import UNetParams


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


def images(count: int = 3) -> Tensor:
    """Of 256 values, black and white among them."""
    levels = torch.randint(0, 256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    levels[:, :, :5], levels[:, :, 5:10] = 0, 255
    return (levels / 255 - 0.5) / 0.5
