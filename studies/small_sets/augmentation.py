"""Train on moved images, and tell the network how each was moved, so that it need not draw moved ones.

Karras et al. 2022 (arXiv:2206.00364), appendix F.2. A model file has no trace of it: without a move, the input is zero.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.images.splits import Split
from ddpm.optim import Optimization
from ddpm.train import Training
from ddpm.unet import UNet

ZOOM, TURN, SHIFT = 0.2, 0.1, 0.125  # deviation of log2 of the size; turns of up to TURN pi; shifts in sides


class AugmentedTraining(Training):
    """Each image is mirrored, zoomed, turned and shifted independently, each with probability `share`."""

    def __init__(self, network: UNet, *given: Any, share: float) -> None:
        self.share, moves = share, [torch.zeros(0)]
        network.moves = nn.Linear(6, network.params.time_embed_dim, bias=False)
        network.time_mlp.register_forward_hook(
            lambda module, _, embedding: embedding + network.moves(moves[0]) if module.training else embedding
        )
        super().__init__(network, *given)
        self.moves = moves
        self.optimization = Optimization(self.network, self.params, self.total_steps)

    def _with_visible_labels(self, shard: Split, mine: slice) -> Split:
        images, labels = super()._with_visible_labels(shard, mine)
        moved, self.moves[0] = moved_images(images, self.share, self._generator("moves"))
        return Split(moved, labels)

    def kept_model(self) -> UNet:
        """Return the model likewise, without the input for moves."""
        model = super().kept_model()
        del model.moves
        model.time_mlp._forward_hooks.clear()
        if self.guide:
            self.guide.pop("moves.weight", None)
        return model


def moved_images(images: Tensor, share: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move uint8 images (B, C, H, W) on the CPU; return them and what was done to each, (B, 6), zero if nothing."""
    count = len(images)
    chosen = torch.rand(5, count, generator=rng) < share
    zoom, right, down = torch.randn(3, count, generator=rng) * chosen[:3]
    turn = (2 * torch.rand(count, generator=rng) - 1) * chosen[3]
    flip = chosen[4] * torch.randint(2, (count,), generator=rng)
    size, angle, side = 2 ** (-ZOOM * zoom), TURN * math.pi * turn, 1 - 2 * flip
    across = torch.stack([side * angle.cos() * size, -side * angle.sin() * size, 2 * SHIFT * right], dim=1)
    along = torch.stack([angle.sin() * size, angle.cos() * size, 2 * SHIFT * down], dim=1)
    grid = F.affine_grid(torch.stack([across, along], dim=1), [*images.shape], align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False).round().to(torch.uint8)
    told = torch.stack([flip, zoom, angle.sin(), angle.cos() - 1, right, down], dim=1)
    return torch.where(told.any(1).view(-1, 1, 1, 1), moved, images), told
