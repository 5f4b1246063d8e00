"""What a step of training draws: the images of its batch, and for each a timestep, noise, and what the network sees."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.splits import Split, to_float
from ddpm.timesteps import draw_timesteps
from ddpm.training.params import TrainParams
from ddpm.training.stable_targets import Others, draw_others, in_orientation, names_of, stable_start
from ddpm.unet import NO_LABEL


class Batch(NamedTuple):
    """Images and noise in [-1, 1] and N(0, I), each (B, C, H, W); labels, t and names, each (B,), see `names_of`.

    others: images for stable targets, if any.
    """

    x_start: Tensor
    labels: Tensor
    t: Tensor
    noise: Tensor
    names: Tensor
    others: Others | None

    def take(self, part: slice) -> "Batch":
        """Select some of the images."""
        x_start, labels, t, noise, names = (each[part] for each in self[:5])
        return Batch(x_start, labels, t, noise, names, self.others)

    def target(self, x_t: Tensor, signal: Tensor, spread: Tensor) -> Tensor:
        """Return the noise to predict, (B, C, H, W): that of the batch, or `stable_start` gives its mean given x_t."""
        if self.others is None:
            return self.noise
        start = stable_start(x_t, self.x_start, self.labels, self.names, signal, spread, self.others)
        return self.noise + signal / spread * (self.x_start - start)


class Draws:
    """The draws of a training. Those of a step depend on params.seed and its number alone."""

    def __init__(
        self,
        images: Split,
        rows: Tensor,
        params: TrainParams,
        cdf: Tensor,
        class_conditional: bool,
        device: torch.device,
    ) -> None:
        """Draw from these rows of the images.

        Args:
            rows: the indices of the images to train on, at least batch_size, where the images are.
            cdf: the distribution of t, see `timestep_cdf`.
            class_conditional: whether the network sees labels.
        """
        self.images = images
        self.rows = rows
        self.params = params
        self.cdf = cdf
        self.class_conditional = class_conditional
        self.device = device

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of full batches; a short last one is dropped."""
        return len(self.rows) // self.params.batch_size

    def batches(self, first: int, end: int) -> Iterator[Tensor]:
        """Yield the rows of the batches of steps `first` to `end`, each (batch_size,), shuffled in every epoch."""
        size, per_epoch = self.params.batch_size, self.steps_per_epoch
        while first < end:
            epoch, done = divmod(first, per_epoch)
            order = torch.randperm(len(self.rows), generator=generator(self.params.seed, "shuffle", epoch + 1))
            last = min(per_epoch, end - epoch * per_epoch)
            yield from self.rows[order[done * size : last * size].to(self.rows.device)].split(size)
            first += last - done

    def draw(self, rows: Tensor, step: int) -> Batch:
        """Draw t and noise for the images with these rows, (B,). Hide labels and mirror images as params say."""
        params, device = self.params, self.device
        batch = self.images.batch(rows, device)
        rng = generator(params.seed, "train", step, device)
        t = draw_timesteps(len(rows), self.cdf, params.timestep_sampling, rng)  # line 3 of algorithm 1
        noise = torch.randn(*batch.images.shape, generator=rng, device=device)  # line 4
        mirrored = self._chance("flip", step) < 0.5 if params.flip else None
        images, labels = in_orientation(batch, mirrored)
        if not self.class_conditional:
            labels = torch.full_like(labels, NO_LABEL)
        elif params.label_dropout:  # classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598)
            labels = labels.masked_fill(self._chance("label dropout", step) < params.label_dropout, NO_LABEL)
        others = draw_others(self.images, self.rows, params, step, device) if params.target_images else None
        return Batch(to_float(images), labels, t, noise, names_of(rows.to(device), mirrored), others)

    def _chance(self, purpose: str, step: int) -> Tensor:
        """Sample a number in [0, 1) for each image of the whole batch, (batch_size,)."""
        rng = generator(self.params.seed, purpose, step, self.device)
        return torch.rand(self.params.batch_size, generator=rng, device=self.device)
