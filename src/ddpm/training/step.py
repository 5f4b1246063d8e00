"""One gradient step of training: lines 3 to 5 of algorithm 1 in Ho et al. 2020 (arXiv:2006.11239).

Each process computes the gradients of its shard of the batch; their sum is the gradient of the whole batch.

Environment:
    DDPM_ACCUMULATE  micro-batches of a shard, for batches that do not fit into memory; by default 1. Gradients
                     accumulate; results may differ by rounding.
"""

import torch
from torch import Tensor

from ddpm.compute.environment import number
from ddpm.compute.randomness import generator
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
        images: Split | Subset,
        params: TrainParams,
        world: World,
    ) -> None:
        """Take the training images too: each step draws params.target_images of them, see `stable_start`."""
        self.optimization = optimization
        self.network = optimization.network
        self.denoiser = denoiser
        self.loss = loss
        self.images = images
        self.params = params
        self.world = world
        self.accumulation_steps = accumulation_steps()
        self.device = loss.runtime.device
        self.cdf = loss.cdf(params.log_snr_center, params.log_snr_uniform)

    def __call__(self, shard: Split) -> tuple[Tensor, Tensor]:
        """Take one step, and return t and the detached loss of every image of the whole batch, each (batch_size,).

        The returned loss is always the error of the noise (eq. 14), whatever is minimised, so that curves compare.

        Args:
            shard: this process's shard of the batch, on the device.
        """
        count = self.params.batch_size
        rng = generator(self.params.seed, "train", self.optimization.steps, self.device)
        t, noise = self.loss.draw(count, self.cdf, self.params.timestep_sampling, rng)  # lines 3 and 4
        mine = self.world.shard(count)
        batch = self._with_visible_labels(self._mirrored(shard, mine), mine)
        self.network.zero_grad(set_to_none=True)
        losses = torch.zeros(count, device=t.device)
        losses[mine] = self._backward(batch, t[mine], noise[mine])  # line 5: the gradient
        self.world.sum([losses, *(weight.grad for weight in self.network.parameters() if weight.grad is not None)])
        self.optimization.step()  # line 5: the step
        return t, losses

    def _backward(self, batch: Split, t: Tensor, noise: Tensor) -> Tensor:
        """Accumulate the gradients of the shard's part of the mean loss; return the loss of every image, (B,)."""
        found, others = [], self._others()
        size = -(-len(t) // self.accumulation_steps)
        for part in (slice(start, start + size) for start in range(0, len(t), size)):
            mse = self.loss.mse(self.denoiser, batch.take(part), t[part], noise[part], others)
            (self.loss.weighted(mse, t[part]).sum() / self.params.batch_size).backward()
            found.append(mse.detach())
        return torch.cat(found)

    def _mirrored(self, shard: Split, mine: slice) -> Split:
        """Mirror half of the images left to right, at random, if params.flip is set."""
        if not self.params.flip:
            return shard
        mirrored = self._uniform("flip")[mine] < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), shard.images.flip(3), shard.images)
        return Split(images, shard.labels)

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

    def _others(self) -> Split | None:
        """Draw params.target_images training images, the same in every process; half are mirrored if asked for."""
        if not self.params.target_images:
            return None
        rng = generator(self.params.seed, "target images", self.optimization.steps)
        index = torch.randperm(len(self.images.labels), generator=rng)[: self.params.target_images]
        images, labels = self.images.batch(index.to(self.images.labels.device), self.device)
        if self.params.flip:
            images = torch.cat([images[::2], images[1::2].flip(3)])
            labels = torch.cat([labels[::2], labels[1::2]])
        return Split(images, labels)

    def _uniform(self, purpose: str) -> Tensor:
        """Sample a number in [0, 1) for each image of the whole batch, (batch_size,)."""
        rng = generator(self.params.seed, purpose, self.optimization.steps, self.device)
        return torch.rand(self.params.batch_size, generator=rng, device=self.device)


def accumulation_steps() -> int:
    """Return the number of micro-batches from DDPM_ACCUMULATE.

    Raises:
        UserError: the variable is not a number from 1 to a million.
    """
    return number("DDPM_ACCUMULATE", 1, 1, 1_000_000, "micro-batches")
