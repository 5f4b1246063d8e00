"""Rows of samples that show how far a training is. Nothing of the samplers is used: an edit there must not train again.

Pillow encodes no picture here, for the same reason: an upgrade would train again.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torchvision.io import encode_png

from .denoiser import Denoiser
from .schedule import posterior

FIRST = 10_000  # images seen before the first row; the next rows come after each doubling
COLUMNS, MOST = 10, 40  # images in a row: one of each class, but at least and at most so many
STEPS, SCALE = 25, 2  # evaluations of each; enlargement


@torch.no_grad()
def ddim(denoiser: Denoiser, x_t: Tensor, labels: Tensor) -> Tensor:
    """Sample from noise x_t (B, C, H, W) by STEPS of DDIM without new noise (Song et al. 2021, arXiv:2010.02502)."""
    last = denoiser.schedule.timesteps - 1
    timesteps = torch.linspace(last, 0, min(STEPS, last + 1)).round().long()
    abars = [*denoiser.schedule.alphas_cumprod.cpu()[timesteps].tolist(), 1.0]
    for t, (abar, abar_prev) in zip(timesteps.tolist(), pairwise(abars), strict=True):
        pred_x_start = denoiser(x_t, torch.full_like(labels, t), labels).x_start.clamp(-1, 1)
        coef1, coef2, _ = posterior(abar, abar_prev, 0.0)
        x_t = coef1 * pred_x_start + coef2 * x_t
    return x_t


def png(rows: Tensor) -> bytes:
    """Encode rows of images, uint8 (rows, columns, C, H, W), C 1 or 3, below one another as a PNG."""
    pixels = rows.repeat_interleave(SCALE, 3).repeat_interleave(SCALE, 4).permute(2, 0, 3, 1, 4)
    return encode_png(pixels.flatten(3).flatten(1, 2)).numpy().tobytes()
