"""Convert images between uint8 in 0..255 and float32 in [-1, 1], and pad their size for the U-Net."""

import math

import torch
from torch import Tensor

MOST_BOTTLENECK = 9  # pixels a side: enough to locate objects, few enough to be cheap


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 levels to float32 in [-1, 1]."""
    return (images.to(torch.float32) / 255 - 0.5) / 0.5


def to_uint8(images: Tensor) -> Tensor:
    """Convert floats in [-1, 1] to uint8 levels: clip, then round to the nearest."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def halvings(height: int, width: int) -> int:
    """Return how often to halve images of this size, down to 5 to 9 pixels a side."""
    return max(0, math.ceil(math.log2(math.sqrt(height * width) / MOST_BOTTLENECK)))


def padded(height: int, width: int) -> tuple[int, int]:
    """Return the smallest size that contains this one and can be halved as often as `halvings` says."""
    unit = 2 ** halvings(height, width)
    outer = -(-height // unit) * unit, -(-width // unit) * unit
    return outer if outer == (height, width) else padded(*outer)  # a larger size may need one more halving
