"""Augmentation: each image turned, scaled, sheared, moved and bent a little, each in a way of its own."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ddpm.compute.device import sent

NODES = 8  # a side, of random vectors, between which an image bends; the width of each is their distance


class Strengths(NamedTuple):
    """How far each may go, either way.

    In degrees (rotation, shear), or as shares of an image's size (scale) or side (shift; elastic: the standard
    deviation of a pixel's way). The last is some 1.5 pixels of 28 (as Simard et al. 2003, "Best practices for
    convolutional neural networks applied to visual document analysis").
    """

    rotation: float = 15
    scale: float = 0.15
    shear: float = 10
    shift: float = 2 / 28
    elastic: float = 1.5 / 28


STRENGTHS = Strengths()


def augmented(images: Tensor, source: Generator, background: Tensor, strengths: Strengths = STRENGTHS) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] by a random affine map and a smooth random displacement each.

    The background, (1, C, 1, 1), comes in at the edges. The generator is one of the CPU.
    """
    count, _, height, width = images.shape
    where = F.affine_grid(_affine(count, height / width, source, strengths), list(images.shape), align_corners=False)
    where += 2 * strengths.elastic * _field(count, height, width, source)  # a side is 2 long
    # Outside there are zeros.
    moved = F.grid_sample(images - background, sent(where, images.device), align_corners=False)
    return moved + background


def _affine(count: int, aspect: float, source: Generator, strengths: Strengths) -> Tensor:
    """Random maps (count, 2, 3) of places in the new image to places in the old, in coordinates of -1 to 1."""
    angle, size, shear, *shift = (2 * torch.rand(5, count, generator=source) - 1).unbind()
    angle, size = math.radians(strengths.rotation) * angle, 1 + strengths.scale * size
    slope = (math.radians(strengths.shear) * shear).tan()
    cos, sin = angle.cos() / size, angle.sin() / size
    dx, dy = (2 * strengths.shift * each for each in shift)
    # Rotation times shear; of an image that is not square, a step down is not as long as one across.
    across = torch.stack([cos, (slope * cos - sin) * aspect, dx], dim=1)
    down = torch.stack([sin / aspect, slope * sin + cos, dy], dim=1)
    return torch.stack([across, down], dim=1)


def _field(count: int, height: int, width: int, source: Generator) -> Tensor:
    """Smooth random vectors (count, H, W, 2), each component at each place of mean 0 and deviation 1."""
    noise = torch.randn(count, 2, NODES, NODES, generator=source)
    return (_blur(height) @ noise @ _blur(width).T).permute(0, 2, 3, 1)


def _blur(side: int) -> Tensor:
    """Weights of the nodes at each pixel, (side, NODES), Gaussian; their squares sum to 1 at each."""
    nodes = torch.linspace(0, 1, NODES)
    pixels = (torch.arange(side) + 0.5) / side
    weights = torch.exp(-(((pixels[:, None] - nodes) * (NODES - 1)) ** 2) / 2)
    return weights / weights.norm(dim=1, keepdim=True)
