"""Validation during a training: the loss on held-out images, and the weights with the lowest one."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddpm.compute.randomness import generator
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.timesteps import Buckets, relative_density
from ddpm.images.splits import Split
from ddpm.parallel.world import World
from ddpm.training.losses import DenoisingLoss

BATCH = 392_000  # pixels per batch


class BestWeights(NamedTuple):
    """The weights with the lowest validation loss so far, their loss as training minimises it, and their step."""

    loss: float
    step: int
    weights: dict[str, Tensor]


class Validation:
    """The loss on held-out images, perhaps none, with the same t and noise every time."""

    def __init__(self, held_out: Split, loss: DenoisingLoss, cdf: Tensor, seed: int, world: World) -> None:
        """Take the images, and the density of t of the training, see `DenoisingLoss.cdf`."""
        self.held_out = held_out.to(loss.runtime.device)
        self.loss = loss
        self.cdf = cdf
        self.seed = seed
        self.world = world
        self.best: BestWeights | None = None

    @torch.no_grad()
    def of(self, denoiser: Denoiser, weights: nn.Module, step: int) -> Tensor | None:
        """Return the loss per timestep bucket, (TIMESTEP_BUCKETS,), of a model in evaluation mode; None without images.

        Keep the weights with the lowest validation loss, at the weighting and the density of t of the training.
        """
        count, device = len(self.held_out.images), self.loss.runtime.device
        if not count:
            return None
        uniform = self.loss.cdf(None)
        density = relative_density(self.cdf).float()
        size = max(1, BATCH // self.held_out.images[0, 0].numel())
        buckets, total = Buckets(len(uniform), device), torch.zeros((), device=device)
        for index in range(self.world.rank, -(-count // size), self.world.size):
            batch = self.held_out.batch(slice(index * size, (index + 1) * size), device)
            rng = generator(self.seed, "validation", index, device)
            t, noise = self.loss.draw(len(batch.images), uniform, "stratified", rng)
            mse = self.loss.mse(denoiser, batch, t, noise)
            buckets.add(t, mse, torch.ones_like(mse))
            total += (self.loss.weighted(mse, t) * density[t]).sum()
        self.world.sum([buckets.sums, buckets.weights, total])
        if (loss := float(total) / count) < (self.best.loss if self.best else math.inf):
            self.best = BestWeights(loss, step, {name: each.clone() for name, each in weights.state_dict().items()})
        return buckets.mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights so far."""
        return self.best._asdict() if self.best else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best weights of another Validation."""
        self.best = BestWeights(**state) if state else None
