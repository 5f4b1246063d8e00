"""Augment images: rotate, scale, shear, shift and bend each one a little, at random."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ddpm.compute.device import sent

NODES = 8  # random vectors per side that bend an image; their distance is the width of each Gaussian


class Strengths(NamedTuple):
    """The largest change in either direction.

    rotation, shear: degrees. scale: share of the size. shift: share of the side. elastic: standard deviation of a
    pixel's displacement, as a share of the side. Its value, some 1.5 pixels of 28, follows Simard et al. 2003, "Best
    practices for convolutional neural networks applied to visual document analysis".
    """

    rotation: float = 15
    scale: float = 0.15
    shear: float = 10
    shift: float = 2 / 28
    elastic: float = 1.5 / 28


STRENGTHS = Strengths()


def augmented(images: Tensor, rng: Generator, background: Tensor, strengths: Strengths = STRENGTHS) -> Tensor:
    """Apply a random affine map and a smooth random displacement to each of the images (B, C, H, W) in [-1, 1].

    The background, (1, C, 1, 1), fills the edges. The generator is on the CPU.
    """
    count, _, height, width = images.shape
    where = F.affine_grid(_affine(count, height / width, rng, strengths), list(images.shape), align_corners=False)
    where += 2 * strengths.elastic * _field(count, height, width, rng)  # a side has length 2
    # grid_sample takes zeros outside the image.
    moved = F.grid_sample(images - background, sent(where, images.device), align_corners=False)
    return moved + background


def _affine(count: int, aspect: float, rng: Generator, strengths: Strengths) -> Tensor:
    """Sample affine maps (count, 2, 3) from places in the new image to places in the old, in coordinates of -1 to 1."""
    angle, size, shear, *shift = (2 * torch.rand(5, count, generator=rng) - 1).unbind()
    angle, size = math.radians(strengths.rotation) * angle, 1 + strengths.scale * size
    slope = (math.radians(strengths.shear) * shear).tan()
    cos, sin = angle.cos() / size, angle.sin() / size
    dx, dy = (2 * strengths.shift * each for each in shift)
    # Rotation times shear. If an image is not square, steps down and across differ in length.
    across = torch.stack([cos, (slope * cos - sin) * aspect, dx], dim=1)
    down = torch.stack([sin / aspect, slope * sin + cos, dy], dim=1)
    return torch.stack([across, down], dim=1)


def _field(count: int, height: int, width: int, rng: Generator) -> Tensor:
    """Sample smooth random vectors (count, H, W, 2); each component at each place has mean 0 and deviation 1."""
    noise = torch.randn(count, 2, NODES, NODES, generator=rng)
    return (_blur(height) @ noise @ _blur(width).T).permute(0, 2, 3, 1)


def _blur(side: int) -> Tensor:
    """Return the Gaussian weights of the nodes at each pixel, (side, NODES); their squares sum to 1."""
    nodes = torch.linspace(0, 1, NODES)
    pixels = (torch.arange(side) + 0.5) / side
    weights = torch.exp(-(((pixels[:, None] - nodes) * (NODES - 1)) ** 2) / 2)
    return weights / weights.norm(dim=1, keepdim=True)
