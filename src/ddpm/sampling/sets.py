"""Sample many images, batch by batch, in one or several processes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.compute.workers import in_pieces, tick
from ddpm.compute.world import World
from ddpm.images.splits import Samples, to_uint8
from ddpm.model import LoadedModel
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.sample import BAR, sample_batch, visited
from ddpm.sampling.params import SamplerParams, SetParams, sample_batch_size, sample_labels, wanted_classes
from exact_stages.console import progress

LEAST_BATCHES = 4  # of a set on a CPU, so that workers can share it


def sample_images(
    loaded: LoadedModel, params: SamplerParams, seed: int, numbers: range, runtime: Runtime, label: str = ""
) -> Iterator[tuple[range, Tensor]]:
    """Sample the images `numbers`, and yield each finished batch: its numbers and images, uint8 (B, C, H, W).

    The progress bar is called `label`; without a label there is none.
    """
    size = sample_batch_size(loaded.card, runtime)
    batches = [numbers[first : first + size] for first in range(0, len(numbers), size)]

    def sampled(batch: range) -> Tensor:
        for step in sample_batch(loaded, params, seed, batch, runtime):
            tick(len(batch))
        return to_uint8(step.x_prev).cpu()

    with progress(desc=label, total=len(visited(loaded, params)) * len(numbers), disable=not label, **BAR) as bar:
        yield from zip(batches, in_pieces(sampled, batches, bar.update), strict=True)


class Sampling:
    """The sampling of one set of images, which grows by whole batches.

    images: uint8 (count, C, H, W).
    frames: x_t and pred_x_start at the timesteps `kept_t`, uint8 (2, frames, count, C, H, W).
    done: number of images sampled so far.
    """

    def __init__(self, name: str, loaded: LoadedModel, params: SamplerParams, own: SetParams) -> None:
        """Begin without images; `own` has count, seed and frames."""
        self.name = name
        self.loaded = loaded
        self.params = params
        self.own = own
        self.timesteps = visited(loaded, params)
        self.kept_t = [*self.timesteps[::-1][:: own.keep_every]][::-1] if own.keep_every else []
        shape = (own.count, *loaded.card.data.shape)
        self.images = torch.empty(shape, dtype=torch.uint8)
        self.frames = torch.empty(2, len(self.kept_t), *shape, dtype=torch.uint8)
        self.done = 0
        self.batch_size = 0  # with the same one, a device gives equal bytes

    def run(self, runtime: Runtime, world: World, checkpoints: Checkpoints) -> None:
        """Sample the remaining images. Each process takes a batch at a time; rank 0 gathers all.

        Raises:
            UserError: the run was interrupted.
        """
        count, evaluations = self.own.count, len(self.timesteps)
        size = min(world.gather(sample_batch_size(self.loaded.card, runtime)))
        if runtime.device.type == "cpu":
            size = min(size, -(-count // LEAST_BATCHES))
        self.batch_size = size
        total, done = count * evaluations, self.done * evaluations

        def rounds(world: World) -> None:
            bar = progress(desc=f"sample {self.name}", total=total, initial=done, disable=world.rank > 0, **BAR)
            with bar:
                while self.done < count:
                    first = self.done + world.rank * size
                    mine = range(first, min(first + size, count))  # empty if the other processes have the rest
                    found = self._batch(mine, runtime, checkpoints, bar) if mine else None
                    for images, frames in filter(None, world.gather(found)):
                        self._add(images, frames)
                    bar.update(self.done * evaluations - bar.n)  # images of other processes

        checkpoints.together(-(-(count - self.done) // size), rounds)

    def samples(self) -> Samples:
        """Return the set, with labels if the model is class-conditional."""
        card, params = self.loaded.card, self.params
        labels = sample_labels(card, params, self.own.seed, range(self.own.count))
        made = {"set": self.name, "sampler": params.sampler, "evaluations": len(self.timesteps)}
        made["guidance"] = params.guidance
        return Samples(
            images=self.images,
            labels=labels if card.model.class_conditional else None,
            x_t=self.frames[0],
            pred_x_start=self.frames[1],
            card=card.data,
            classes=wanted_classes(card, params),
            kept_t=self.kept_t,
            made=made,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the images and frames sampled so far."""
        return {"images": self.images[: self.done].clone(), "frames": self.frames[:, :, : self.done].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another sampling with the same arguments."""
        self._add(state["images"], state["frames"])

    def _batch(self, indices: range, runtime: Runtime, checkpoints: Checkpoints, bar: Any) -> tuple[Tensor, Tensor]:
        """Sample the images `indices`; return them and their frames."""
        frames = torch.empty(2, len(self.kept_t), len(indices), *self.images.shape[1:], dtype=torch.uint8)
        for step in sample_batch(self.loaded, self.params, self.own.seed, indices, runtime):
            if step.t in self.kept_t:
                frames[:, self.kept_t.index(step.t)] = to_uint8(torch.stack([step.x_prev, step.pred_x_start]))
            bar.update(len(indices))
            checkpoints.tick()
        return to_uint8(step.x_prev).cpu(), frames

    def _add(self, images: Tensor, frames: Tensor) -> None:
        end = self.done + len(images)
        self.images[self.done : end], self.frames[:, :, self.done : end] = images, frames
        self.done = end
