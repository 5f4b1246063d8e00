"""What a training sees: the images of each batch, mirrored and with hidden labels, and references for its targets."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.randomness import generator
from ddpm.diffusion.targets import References, StableTarget
from ddpm.diffusion.train import Batch
from ddpm.diffusion.unet import NO_LABEL
from ddpm.images.splits import Split, to_float
from ddpm.params.train import TrainParams


class Batches:
    """The batches of a training. That of a step depends on params.seed and its number alone."""

    def __init__(
        self, images: Split, rows: Tensor, params: TrainParams, class_conditional: bool, device: torch.device
    ) -> None:
        """Draw from these rows of the images.

        Args:
            rows: the indices of the images to train on, at least batch_size, where the images are.
            class_conditional: whether the network sees labels.
        """
        self.images = images
        self.rows = rows
        self.params = params
        self.class_conditional = class_conditional
        self.device = device

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of full batches; a short last one is dropped."""
        return len(self.rows) // self.params.batch_size

    def between(self, first: int, end: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `end`, shuffled in every epoch."""
        size = self.params.batch_size
        for step in range(first, end):
            epoch, done = divmod(step, self.steps_per_epoch)
            if step == first or not done:
                order = torch.randperm(len(self.rows), generator=generator(self.params.seed, "shuffle", epoch + 1))
            rows = self.rows[order[done * size : (done + 1) * size].to(self.rows.device)]
            yield self.batch(self._by_label(rows), step)

    def batch(self, rows: Tensor, step: int) -> Batch:
        """Return the batch of a step: the images with these rows, (B,), mirrored and with hidden labels by chance."""
        params, device = self.params, self.device
        mirrored = self._chance("flip", step) < 0.5 if params.flip else None
        images, labels = in_orientation(self.images.batch(rows, device), mirrored)
        if not self.class_conditional:
            labels = torch.full_like(labels, NO_LABEL)
        elif params.label_dropout:  # classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598)
            labels = labels.masked_fill(self._chance("label dropout", step) < params.label_dropout, NO_LABEL)
        x_start = to_float(images)
        if not params.target_images:
            return Batch(x_start, labels)
        ids = ids_of(rows.to(device), mirrored)
        return Batch(x_start, labels, StableTarget(x_start, labels, ids, self.references(step)))

    def references(self, step: int) -> References:
        """Draw params.target_images of the images, the same in every process; half are mirrored if any is."""
        params, device = self.params, self.device
        drawn = distinct(params.target_images or 0, len(self.rows), params.seed, "target images", step)
        chosen = self._by_label(self.rows[drawn.to(self.rows.device)])
        mirrored = torch.arange(len(chosen), device=device) % 2 == 1 if params.flip else None
        split = in_orientation(self.images.batch(chosen, device), mirrored)
        flat = split.images.flatten(1).float().div_(127.5).sub_(1)  # to_float in place, several times faster
        squares = torch.linalg.vector_norm(flat, dim=1).square()
        return References(flat, squares, split.labels, ids_of(chosen.to(device), mirrored))

    def _by_label(self, rows: Tensor) -> Tensor:
        """Sort the rows of images by their labels, so that a shard of a batch meets few references."""
        return rows[self.images.labels[rows].argsort(stable=True)]

    def _chance(self, purpose: str, step: int) -> Tensor:
        """Sample a number in [0, 1) for each image of the whole batch, (batch_size,)."""
        rng = generator(self.params.seed, purpose, step, self.device)
        return torch.rand(self.params.batch_size, generator=rng, device=self.device)


def distinct(count: int, end: int, seed: int, purpose: str, index: int = 0) -> Tensor:
    """Sample `count` distinct integers of 0..end-1, or all, in random order; the time does not grow with `end`."""
    seeded = np.random.default_rng(generator(seed, purpose, index).initial_seed())
    return torch.from_numpy(seeded.choice(end, min(count, end), replace=False))


def ids_of(rows: Tensor, mirrored: Tensor | None) -> Tensor:
    """Return a number for each training image and orientation, (B,): an image and its mirror image differ."""
    return 2 * rows if mirrored is None else 2 * rows + mirrored


def in_orientation(split: Split, mirrored: Tensor | None) -> Split:
    """Mirror images (B, C, H, W) left to right where `mirrored` (B,) is true."""
    if mirrored is None:
        return split
    return Split(torch.where(mirrored.view(-1, 1, 1, 1), split.images.flip(3), split.images), split.labels)
