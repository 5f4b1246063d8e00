"""One gradient step of training: lines 3 to 5 of algorithm 1 in Ho et al. 2020 (arXiv:2006.11239).

Each process computes the gradients of its shard of the batch; their sum is the gradient of the whole batch.

Environment:
    DDPM_ACCUMULATE  micro-batches of a shard, for batches that do not fit into memory; by default 1. Gradients
                     accumulate; results may differ by rounding.
"""

import torch
from torch import Tensor

from ddpm.compute.device import number
from ddpm.compute.randomness import distinct, generator
from ddpm.diffusion.denoiser import Denoiser
from ddpm.images.splits import Split, Subset
from ddpm.networks.unet import NO_LABEL
from ddpm.parallel.world import World
from ddpm.training.losses import DenoisingLoss
from ddpm.training.optim import Optimization
from ddpm.training.recipe import TrainParams


class GradientStep:
    """The gradient step of a training. It never waits for a GPU."""

    def __init__(
        self,
        optimization: Optimization,
        denoiser: Denoiser,
        loss: DenoisingLoss,
        cdf: Tensor,
        images: Split | Subset,
        params: TrainParams,
        world: World,
    ) -> None:
        """Take the density of t, see `DenoisingLoss.cdf`, and the training images.

        Each step draws params.target_images of them, see `stable_start`.
        """
        self.optimization = optimization
        self.network = optimization.network
        self.denoiser = denoiser
        self.loss = loss
        self.cdf = cdf
        self.images = images
        self.params = params
        self.world = world
        self.accumulation_steps = accumulation_steps()
        self.device = loss.runtime.device

    def __call__(self, shard: Split, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step, and return t and the detached loss of every image of the whole batch, each (batch_size,).

        The returned loss is always the error of the noise (eq. 14), whatever is minimised, so that curves compare.

        Args:
            shard: this process's shard of the batch, on the device.
            rows: the indices of its images among the training images.
        """
        count = self.params.batch_size
        rng = generator(self.params.seed, "train", self.optimization.steps, self.device)
        t, noise = self.loss.draw(count, self.cdf, self.params.timestep_sampling, rng)  # lines 3 and 4
        mine = self.world.shard(count)
        mirrored = self._uniform("flip")[mine] < 0.5 if self.params.flip else None
        batch = self._with_visible_labels(in_orientation(shard, mirrored), mine)
        others = self._others(self._names(rows, mirrored)) if self.params.target_images else None
        self.network.zero_grad(set_to_none=True)
        losses = torch.zeros(count, device=t.device)
        losses[mine] = self._backward(batch, t[mine], noise[mine], others)  # line 5: the gradient
        self.world.sum([losses, *(weight.grad for weight in self.network.parameters() if weight.grad is not None)])
        self.optimization.step()  # line 5: the step
        return t, losses

    def _backward(self, batch: Split, t: Tensor, noise: Tensor, others: tuple[Split, Tensor] | None) -> Tensor:
        """Accumulate the gradients of the shard's part of the mean loss; return the loss of every image, (B,)."""
        found = []
        size = -(-len(t) // self.accumulation_steps)
        for part in (slice(start, start + size) for start in range(0, len(t), size)):
            targets = (others[0], others[1][part]) if others else None
            mse = self.loss.mse(self.denoiser, batch.take(part), t[part], noise[part], targets)
            (self.loss.weighted(mse, t[part]).sum() / self.params.batch_size).backward()
            found.append(mse.detach())
        return torch.cat(found)

    def _with_visible_labels(self, shard: Split, mine: slice) -> Split:
        """Hide the labels that the network does not see.

        These are all labels, or those of a random share of the images, params.label_dropout (arXiv:2207.12598).
        """
        if not self.network.params.class_conditional:
            return Split(shard.images, torch.full_like(shard.labels, NO_LABEL))
        if not self.params.label_dropout:
            return shard
        dropped = self._uniform("label dropout")[mine] < self.params.label_dropout
        return Split(shard.images, shard.labels.masked_fill(dropped, NO_LABEL))

    def _others(self, batch: Tensor) -> tuple[Split, Tensor]:
        """Draw K target images, the same in every process; half are mirrored if images are.

        Return them, and which of them are the images of the batch, given by their names, (B, K); see `stable_start`.
        """
        params, count = self.params, len(self.images.labels)
        rows = distinct(params.target_images or 0, count, params.seed, "target images", self.optimization.steps)
        rows = rows.to(self.images.labels.device)
        mirrored = torch.arange(len(rows), device=self.device) % 2 == 1 if params.flip else None
        others = in_orientation(self.images.batch(rows, self.device), mirrored)
        return others, batch[:, None] == self._names(rows, mirrored)

    def _names(self, rows: Tensor, mirrored: Tensor | None) -> Tensor:
        """Return a number for each training image and orientation, (B,): an image and its mirror image differ."""
        names = 2 * rows.to(self.device)
        return names if mirrored is None else names + mirrored

    def _uniform(self, purpose: str) -> Tensor:
        """Sample a number in [0, 1) for each image of the whole batch, (batch_size,)."""
        rng = generator(self.params.seed, purpose, self.optimization.steps, self.device)
        return torch.rand(self.params.batch_size, generator=rng, device=self.device)


def in_orientation(split: Split, mirrored: Tensor | None) -> Split:
    """Mirror images (B, C, H, W) left to right where `mirrored` (B,) is true."""
    if mirrored is None:
        return split
    return Split(torch.where(mirrored.view(-1, 1, 1, 1), split.images.flip(3), split.images), split.labels)


def accumulation_steps() -> int:
    """Return the number of micro-batches from DDPM_ACCUMULATE.

    Raises:
        UserError: the variable is not a number from 1 to a million.
    """
    return number("DDPM_ACCUMULATE", 1, 1, 1_000_000, "micro-batches")
