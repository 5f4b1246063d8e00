"""One gradient step, by this process's share of a batch.

Environment:
    DDPM_ACCUMULATE  parts in which a share goes through the network, where it does not fit the memory; by default 1,
                     and on a GPU whose memory is too small twice as many, until it fits.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from ddpm.compute.capture import captured
from ddpm.compute.environment import number
from ddpm.compute.randomness import generator
from ddpm.images.splits import Split
from ddpm.networks.unet import NO_LABEL
from ddpm.parallel.group import Group
from ddpm.pipeline.console import UserError
from ddpm.training.losses import Denoising
from ddpm.training.optim import Optimization
from ddpm.training.recipe import TrainParams

MOST_PARTS = 1_000_000


class GradientStep:
    """Takes one step after the other; on a GPU nothing in it waits for the device."""

    def __init__(self, optimization: Optimization, denoising: Denoising, params: TrainParams, group: Group) -> None:
        """Begin with the parts that the environment asks for.

        Raises:
            UserError: DDPM_ACCUMULATE is no number, or the network has BatchNorm, which would see parts of a batch.
        """
        self.optimization = optimization
        self.network = optimization.network
        self.denoising = denoising
        self.params = params
        self.group = group
        self.device = denoising.runtime.device
        self.cdf = denoising.cdf(params.log_snr_center)
        self.in_parts(wanted_parts())
        if self.parts > 1 and self._has_batch_norm():
            raise UserError(
                f"DDPM_ACCUMULATE={self.parts}: model.block double_conv has BatchNorm, which sees whole batches"
            )

    def in_parts(self, parts: int) -> None:
        """Let a share go through the network in so many parts; their gradients are summed, which rounds otherwise."""
        self.parts = parts
        self._differentiate = captured(self._gradients, self.device)
        self.optimization.record_anew()

    def __call__(self, share: Split) -> tuple[Tensor, Tensor]:
        """Take the step; t and the detached loss of every image of the batch, of all processes (batch_size,).

        That loss is always the error of the noise, so that curves compare.

        Args:
            share: this process's, on the device.

        Raises:
            UserError: the memory is too small.
        """
        count = self.params.batch_size
        source = generator(self.params.seed, "train", self.optimization.steps, self.device)
        t, noise = self.denoising.draw(count, self.cdf, self.params.timestep_sampling, source)
        mine = self.group.share(count)
        images, labels = self._without_some_labels(self._mirrored(share, mine), mine)
        while (own := self._fitting(images, labels, t[mine], noise[mine])) is None:
            self._halve(len(images))
        losses = torch.zeros(count, device=t.device)
        losses[mine] = own
        self.group.sum([losses, *(weight.grad for weight in self.network.parameters() if weight.grad is not None)])
        self.optimization.step()
        return t, losses

    def _gradients(self, images: Tensor, labels: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Differentiate a share's part of the mean loss of the batch; the error of every image (B,)."""
        self.network.zero_grad(set_to_none=True)
        found = []
        size = -(-len(t) // self.parts)
        for part in (slice(start, start + size) for start in range(0, len(t), size)):
            errors = self.denoising.errors(self.network, Split(images[part], labels[part]), t[part], noise[part])
            (self.denoising.trained(errors, t[part]).sum() / self.params.batch_size).backward()
            found.append(errors.detach())
        return torch.cat(found)

    def _fitting(self, *share: Tensor) -> Tensor | None:
        """What `_gradients` gives, or None where the GPU's memory is too small."""
        try:
            return self._differentiate(*share)
        except torch.OutOfMemoryError:
            return None

    def _halve(self, images: int) -> None:
        """Go on with twice as many parts.

        Raises:
            UserError: there are as many as images, or the network has BatchNorm.
        """
        if self.parts >= images or self._has_batch_norm():
            raise UserError(f"train.batch_size: {images} images a GPU do not fit its memory; set less than that")
        self.network.zero_grad(set_to_none=True)
        self.in_parts(2 * self.parts)
        torch.cuda.empty_cache()
        print(f"train: the GPU's memory takes a batch in {self.parts} parts", file=sys.stderr)

    def _has_batch_norm(self) -> bool:
        return self.network.params.block == "double_conv"

    def _mirrored(self, share: Split, mine: slice) -> Split:
        """Half of the images, where params.flip allows it, mirrored left to right."""
        if not self.params.flip:
            return share
        mirrored = self._uniform("flip")[mine] < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), share.images.flip(3), share.images)
        return Split(images, share.labels)

    def _without_some_labels(self, share: Split, mine: slice) -> Split:
        """The images, of params.label_dropout of which the network is not told the class (arXiv:2207.12598)."""
        if not self.params.label_dropout:
            return share
        dropped = self._uniform("label dropout")[mine] < self.params.label_dropout
        return Split(share.images, share.labels.masked_fill(dropped, NO_LABEL))

    def _uniform(self, purpose: str) -> Tensor:
        """A number in [0, 1) for each image of the batch, (batch_size,)."""
        source = generator(self.params.seed, purpose, self.optimization.steps, self.device)
        return torch.rand(self.params.batch_size, generator=source, device=self.device)


def with_parts(environment: dict[str, Any], parts: int) -> dict[str, Any]:
    """What a result is bound to, with the parts of a batch where there are several."""
    return environment | ({"parts": parts} if parts > 1 else {})


def wanted_parts() -> int:
    """What DDPM_ACCUMULATE says.

    Raises:
        UserError: it is no number.
    """
    return number("DDPM_ACCUMULATE", 1, 1, MOST_PARTS, "parts of a batch")
