"""The two forms of images, uint8 in 0..255 and float32 in [-1, 1], and what their size asks for."""

import math

import torch
from torch import Tensor

MOST_BOTTLENECK = 9  # pixels a side: enough for where things are, few enough to be cheap


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 [-1, 1]: scaled to [0, 1], then mean 0.5 and deviation 0.5."""
    return (images.to(torch.float32) / 255 - 0.5) / 0.5


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 0..255, rounded to the nearest; values outside are clipped first."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def halvings(height: int, width: int) -> int:
    """How often a network halves images of this size, so that at its bottleneck a side has some 5 to 9 pixels."""
    return max(0, math.ceil(math.log2(math.sqrt(height * width) / MOST_BOTTLENECK)))


def padded(height: int, width: int) -> tuple[int, int]:
    """The least size that contains this one and can be halved so often."""
    unit = 2 ** halvings(height, width)
    outer = -(-height // unit) * unit, -(-width // unit) * unit
    return outer if outer == (height, width) else padded(*outer)  # which may be halved once more
