"""Validation while a denoiser trains, and the weights that are kept by it."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.diffusion.timesteps import Buckets
from ddpm.images.splits import Split
from ddpm.networks.unet import UNet
from ddpm.parallel.world import World
from ddpm.training.losses import Denoising

BATCH = 392_000  # pixels


class Kept(NamedTuple):
    """The weights of the lowest validation loss so far (the loss that is trained), and the step that they are of."""

    loss: float
    step: int
    weights: dict[str, Tensor]


class Validation:
    """The loss on held-out images, of which there may be none, with the same t and noise every time."""

    def __init__(
        self, held_out: Split, denoising: Denoising, log_snr_center: float | None, seed: int, world: World
    ) -> None:
        self.held_out = held_out.to(denoising.runtime.device)
        self.denoising = denoising
        self.log_snr_center = log_snr_center
        self.seed = seed
        self.world = world
        self.kept: Kept | None = None

    @torch.no_grad()
    def of(self, model: UNet, step: int) -> Tensor | None:
        """Loss per timestep bucket, (TIMESTEP_BUCKETS,), of a model in evaluation mode; None without images.

        Where the loss that is trained, over t as likely as in training, is lower than ever, its weights are kept.
        """
        count, device = len(self.held_out.images), self.denoising.runtime.device
        if not count:
            return None
        uniform, trained = self.denoising.cdf(None), self.denoising.cdf(self.log_snr_center)
        density = torch.diff(trained, prepend=trained.new_zeros(1)).float() * len(trained)
        size = max(1, BATCH // self.held_out.images[0, 0].numel())
        buckets, total = Buckets(len(uniform), device), torch.zeros((), device=device)
        for index in range(self.world.rank, -(-count // size), self.world.size):
            batch = self.held_out.batch(slice(index * size, (index + 1) * size), device)
            source = generator(self.seed, "validation", index, device)
            t, noise = self.denoising.draw(len(batch.images), uniform, "stratified", source)
            errors = self.denoising.errors(model, batch, t, noise)
            buckets.add(t, errors)
            total += (self.denoising.trained(errors, t) * density[t]).sum()
        self.world.sum([buckets.sums, buckets.counts, total])
        if (loss := float(total) / count) < (self.kept.loss if self.kept else math.inf):
            weights = {name: weight.clone() for name, weight in model.state_dict().items()}
            self.kept = Kept(loss, step, weights)
        return buckets.mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights so far."""
        return self.kept._asdict() if self.kept else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the best weights of another Validation."""
        self.kept = Kept(**state) if state else None
