"""The shape of the images, and their two forms: uint8 in 0..255 and float32 in [-1, 1]."""

import torch
from torch import Tensor

IMAGE_SHAPE = (1, 28, 28)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1]: scaled to [0, 1], then mean 0.5 and deviation 0.5."""
    return (images.to(torch.float32) / 255 - 0.5) / 0.5


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 0..255, rounded to the nearest; values outside are clipped first."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
