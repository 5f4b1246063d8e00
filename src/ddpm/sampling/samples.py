"""A set of samples: its images and kept frames of the reverse process, sampled by one or more processes."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.images.splits import to_uint8
from ddpm.networks.checkpoint import LoadedModel
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.parallel.world import World
from ddpm.sampling.generation import (
    batches,
    check_sampler,
    sample_batch,
    sample_batch_size,
    sample_labels,
    wanted_classes,
)
from ddpm.sampling.samplers import SamplerParams
from exact_stages.console import UserError, progress

MOST_IMAGES, MOST_KEPT, MOST_FRAMES = 10_000_000, 1000, 1000


class SampleParams(SamplerParams):
    """The sampler's params, the number of images, their seed, and the frames to keep."""

    count: Annotated[int, Field(ge=2, le=MOST_IMAGES)]
    keep_every: Annotated[int, Field(ge=0, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    def frames(self, steps: int) -> int:
        """Return how many of the steps are kept as frames: the last, and every keep_every-th before it."""
        return -(-steps // self.keep_every) if self.keep_every else 0

    def excess(self, steps: int) -> str:
        """Return what is wrong with the number of frames, which are held in memory; "" if nothing is."""
        frames = self.frames(steps)
        if frames and self.count > MOST_KEPT:
            return (
                f"count: {self.count} must be at most {MOST_KEPT} if frames are kept; lower it, or set keep_every to 0"
            )
        if frames > MOST_FRAMES:
            return f"keep_every: {self.keep_every} keeps {frames} frames, more than {MOST_FRAMES}; raise it"
        return ""


class Samples:
    """The samples of one set, which grow by whole batches.

    images: uint8 (count, C, H, W).
    frames: x_t and pred_x_start at the timesteps `kept_t`, uint8 (2, frames, count, C, H, W).
    done: number of images sampled so far.
    """

    def __init__(self, name: str, loaded: LoadedModel, params: SampleParams) -> None:
        """Begin without images.

        Args:
            name: name of the set, for messages.

        Raises:
            UserError: params do not fit the model, or keep too many frames.
        """
        try:
            self.steps = check_sampler(loaded, params)
        except UserError as error:
            raise UserError(f"sample.{name}.{error}") from None
        if excess := params.excess(self.steps):
            raise UserError(f"sample.{name}.{excess}")
        self.name = name
        self.loaded = loaded
        self.params = params
        shape = (params.count, *loaded.card.data.shape)
        self.images = torch.empty(shape, dtype=torch.uint8)
        self.frames = torch.empty(2, params.frames(self.steps), *shape, dtype=torch.uint8)
        self.kept_t: list[int] = []
        self.done = 0
        self.batch_size = 0  # of each process; with the same one, a device gives equal bytes

    def run(self, runtime: Runtime, world: World, checkpoints: Checkpoints) -> None:
        """Sample the remaining images. Each process takes a batch at a time; rank 0 gathers all.

        Raises:
            UserError: the run was interrupted.
        """
        count = self.params.count
        self.batch_size = size = min(world.gather(sample_batch_size(self.loaded, runtime)))
        bar = progress(
            desc=f"sample {self.name}",
            total=count * self.steps,
            initial=self.done * self.steps,
            unit="eval",
            unit_scale=True,
            disable=world.rank > 0,
        )
        with bar:
            while self.done < count:
                together = [*batches(self.done, min(size * world.size, count - self.done), size)]
                mine = together[world.rank] if world.rank < len(together) else range(0)
                for batch in world.gather(self._batch(mine, runtime, checkpoints, bar)):
                    self._add(*batch)
                bar.update(self.done * self.steps - bar.n)  # images of other processes

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays of the file, with labels if the model is class-conditional."""
        tensors = {"images": self.images, "x_t": self.frames[0], "pred_x_start": self.frames[1]}
        if self.loaded.card.model.class_conditional:
            tensors["labels"] = sample_labels(self.loaded.card, self.params, self.params.seed, range(self.params.count))
        return tensors

    def facts(self) -> dict[str, Any]:
        """Return the metadata of the file."""
        card = self.loaded.card
        data, classes = card.data.model_dump(mode="json"), wanted_classes(card, self.params)
        params = self.params.for_model(card)
        made = {"sampler": params.sampler, "evaluations": self.steps, "guidance": params.guidance}
        return {"data": data, "classes": classes, "kept_t": self.kept_t, "made": {"set": self.name, **made}}

    def state_dict(self) -> dict[str, Any]:
        """Return the images and frames sampled so far."""
        return {
            "images": self.images[: self.done].clone(),
            "frames": self.frames[:, :, : self.done].clone(),
            "kept_t": self.kept_t,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another set with the same arguments."""
        self._add(state["images"], state["frames"])
        self.kept_t = state["kept_t"]

    def _batch(self, indices: range, runtime: Runtime, checkpoints: Checkpoints, bar: Any) -> tuple[Tensor, Tensor]:
        """Sample the images `indices`; return them and their frames."""
        shape = self.loaded.card.data.shape
        images = torch.empty(0, *shape, dtype=torch.uint8)
        frames = [torch.empty(2, 0, len(indices), *shape, dtype=torch.uint8)]
        kept_t: list[int] = []
        steps = sample_batch(self.loaded, self.params, self.params.seed, indices, runtime) if indices else ()
        for done, step in enumerate(steps, start=1):
            if self.params.keep_every and (self.steps - done) % self.params.keep_every == 0:
                frames.append(to_uint8(torch.stack([step.x_prev, step.pred_x_start])).cpu().unsqueeze(1))
                kept_t.append(step.t)
            if done == self.steps:
                images = to_uint8(step.x_prev).cpu()
            bar.update(len(indices))
            checkpoints.tick()
        self.kept_t = kept_t or self.kept_t
        return images, torch.cat(frames, dim=1)

    def _add(self, images: Tensor, frames: Tensor) -> None:
        end = self.done + len(images)
        self.images[self.done : end] = images
        if len(images):
            self.frames[:, :, self.done : end] = frames
        self.done = end


def model_facts(loaded: LoadedModel) -> dict[str, Any]:
    """Return what reports say of the sampled model, which need not be the trained one."""
    card = loaded.card
    return {
        "data": card.data.name,
        "images": sum(card.class_counts),
        "images_seen": card.images_seen,
        "class_conditional": card.model.class_conditional,
        "parameters": sum(weight.numel() for weight in loaded.network.parameters()),
    }
