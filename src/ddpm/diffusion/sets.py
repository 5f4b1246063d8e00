"""Sample images from a loaded model: some, or a whole set, batch by batch, in one or several processes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.randomness import ImageNoise, generator
from ddpm.diffusion.sample import Denoise, Step, check_finite, denoise_by, guided, p_sample_loop, spaced_timesteps
from ddpm.diffusion.unet import NO_LABEL, UNet
from ddpm.images.splits import Samples, Split, to_uint8
from ddpm.params.card import ModelCard
from ddpm.params.sample import SamplerParams, SetParams, SharedParams, count_of, fitted, wanted_classes
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import Runtime, exact, fastest, to_device
from ddpm.processes.workers import add_progress, map_shards
from ddpm.processes.world import World
from exact_stages.console import UserError, progress
from exact_stages.params import parse

OF_STEP = {"sampler", "clip", "eta", "variance"}  # the params that `p_sample_loop` takes
SAMPLED_ON_CPU, SAMPLED_ON_GPU = 25_088, 1_960_000  # pixels in a batch
LEAST_BATCHES = 4  # of a set on a CPU, so that workers can share it
BAR: dict[str, Any] = {"unit": "eval", "unit_scale": True}


def visited(loaded: LoadedModel, params: SamplerParams) -> Sequence[int]:
    """Return the timesteps at which a model is evaluated, descending."""
    return loaded.card.timesteps or spaced_timesteps(loaded.schedule, params.steps)


def sample_labels(card: ModelCard, params: SharedParams, seed: int, indices: Sequence[int]) -> Tensor:
    """Return the label of each of `indices`; NO_LABEL if the model is told none.

    Classes are as frequent as in training, in any run of indices. Multiples of an irrational number, from a random
    start, spread over [0, 1) more evenly than chance does (a Kronecker sequence). Drawn by chance, the mix of 10,000
    labels was a third of the Frechet distance of good samples (studies/recipe).
    """
    if not card.model.class_conditional:
        return torch.full((len(indices),), NO_LABEL)
    wanted = wanted_classes(card, params)
    start = torch.rand((), dtype=torch.float64, generator=generator(seed, "label"))
    places = (start + 2**0.5 * torch.tensor(indices, dtype=torch.float64)) % 1
    shares = torch.tensor(card.class_counts, dtype=torch.float64)[wanted].cumsum(0)
    return torch.tensor(wanted)[torch.searchsorted(shares, places * shares[-1], right=True)]


def sample_batch_size(card: ModelCard, runtime: Runtime) -> int:
    """Return how many images to sample in one batch: it fills a GPU, but stays within a CPU's caches.

    It takes at most half of a GPU's memory. It must not follow the free memory, since the batch decides the rounding.
    """
    (channels, height, width), widths = card.data.shape, card.model.channels
    pixels = height * width
    if runtime.device.type == "cpu":
        return max(1, min(32, SAMPLED_ON_CPU // pixels))
    assert widths
    float32_bytes = 4 * pixels * (channels + 8 * widths[0])  # of eight tensors
    memory = torch.cuda.mem_get_info(runtime.device)[1]
    return max(1, min(SAMPLED_ON_GPU // pixels, memory // (2 * float32_bytes)))


def guided_denoiser(loaded: LoadedModel, labels: Tensor, params: SamplerParams, runtime: Runtime) -> Denoise:
    """Return the function that a sampler calls: the model with the labels (B,), guided as the params say."""
    labels = labels.to(runtime.device)

    def bound(network: UNet, labels: Tensor) -> Denoise:
        return denoise_by(loaded.denoiser(runtime, network), labels)

    denoise = bound(loaded.network, labels)
    if params.guidance == 1:
        return denoise
    assert params.guidance is not None, "fit the params first"
    if params.guide == "autoguidance":
        assert loaded.guide
        guide = bound(loaded.guide, labels)
    else:
        guide = bound(loaded.network, torch.full_like(labels, NO_LABEL))
    return guided(denoise, guide, loaded.schedule, params.guidance, params.guidance_interval)


@torch.inference_mode()
def sample_batch(
    loaded: LoadedModel, params: SamplerParams, seed: int, indices: Sequence[int], runtime: Runtime
) -> Iterator[Step]:
    """Sample the images `indices`, and yield the steps of the reverse process.

    Image i depends on (seed, i), not on the batch. The last `x_prev` is the images, `sample_labels` returns the labels.

    Raises:
        NotFiniteError: after the last step, an image is not finite.
    """
    noise = ImageNoise(seed, indices, loaded.card.data.shape, runtime.device)
    labels = sample_labels(loaded.card, params, seed, indices)
    denoise = guided_denoiser(loaded, labels, params, runtime)
    timesteps = visited(loaded, params)
    for step in p_sample_loop(denoise, loaded.schedule, noise, timesteps, **params.model_dump(include=OF_STEP)):
        if step.t == timesteps[-1] and (black := loaded.card.faint):  # an estimate of such a level is a 0
            step = step._replace(x_prev=step.x_prev.masked_fill(step.x_prev < (black + 0.5) / 127.5 - 1, -1))
        yield step
    check_finite(step.x_prev, indices)


def sample(loaded: LoadedModel, count: int, seed: int = 0, **params: Any) -> Split:
    """Sample images, uint8 (count, C, H, W), and their labels, (count,), on the fastest device of the machine.

    A CPU computes in this process, with one thread. Threads and other settings of the caller are as they were
    afterwards. All labels of a model that is not class-conditional are NO_LABEL.

    Args:
        loaded: from `load_model` or `load_pretrained`.
        params: fields of `SamplerParams`; the others have its defaults, a distilled model its own.

    Raises:
        UserError: params are wrong, or do not fit the model; the message names the param.
        NotFiniteError: an image is not finite.
    """
    if count < 1:
        raise UserError(f"count: {count}; set 1 or more")
    runtime, images = fastest(), []
    with exact(runtime.device):
        for network in filter(None, (loaded.network, loaded.guide)):
            to_device(network, runtime.device)
        chosen = fitted(parse(SamplerParams, params, "sample"), loaded.card)
        size = sample_batch_size(loaded.card, runtime)
        with progress(desc="sample", total=len(visited(loaded, chosen)) * count, **BAR) as bar:
            for batch in (range(count)[first : first + size] for first in range(0, count, size)):
                for step in sample_batch(loaded, chosen, seed, batch, runtime):
                    bar.update(len(batch))
                images.append(to_uint8(step.x_prev).cpu())
    return Split(torch.cat(images), sample_labels(loaded.card, chosen, seed, range(count)))


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
            add_progress(len(batch))
        return to_uint8(step.x_prev).cpu()

    with progress(desc=label, total=len(visited(loaded, params)) * len(numbers), disable=not label, **BAR) as bar:
        yield from zip(batches, map_shards(sampled, batches, bar.update), strict=True)


class Sampling:
    """The sampling of one set of images, which grows by whole batches.

    images: uint8 (count, C, H, W).
    frames: x_t and pred_x_start at the timesteps `kept_t`, uint8 (2, frames, count, C, H, W).
    done: number of images sampled so far.
    """

    def __init__(self, name: str, loaded: LoadedModel, params: SamplerParams, of_set: SetParams) -> None:
        """Begin without images; `of_set` has seed, frames and, if it is given, count."""
        self.name = name
        self.loaded = loaded
        self.params = params
        self.of_set = of_set
        self.timesteps = visited(loaded, params)
        self.kept_t = [*self.timesteps[::-1][:: of_set.keep_every]][::-1] if of_set.keep_every else []
        self.count = count_of(of_set, loaded.card)
        shape = (self.count, *loaded.card.data.shape)
        self.images = torch.empty(shape, dtype=torch.uint8)
        self.frames = torch.empty(2, len(self.kept_t), *shape, dtype=torch.uint8)
        self.done = 0
        self.batch_size = 0  # with the same one, a device gives equal bytes

    def run(self, runtime: Runtime, world: World, checkpoints: Checkpoints) -> None:
        """Sample the remaining images. Each process takes a batch at a time; rank 0 gathers all.

        Raises:
            UserError: the run was interrupted.
        """
        count, evaluations = self.count, len(self.timesteps)
        size = min(world.gather(sample_batch_size(self.loaded.card, runtime)))
        if runtime.device.type == "cpu":
            size = min(2 * size, -(-count // LEAST_BATCHES))  # a large batch is faster, but fewer workers can share it
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

        checkpoints.run_in_processes(-(-(count - self.done) // size), rounds)

    def samples(self) -> Samples:
        """Return the set, with labels if the model is class-conditional."""
        card, params = self.loaded.card, self.params
        labels = sample_labels(card, params, self.of_set.seed, range(self.count))
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
        for step in sample_batch(self.loaded, self.params, self.of_set.seed, indices, runtime):
            if step.t in self.kept_t:
                frames[:, self.kept_t.index(step.t)] = to_uint8(torch.stack([step.x_prev, step.pred_x_start]))
            bar.update(len(indices))
            checkpoints.save_if_due()
        return to_uint8(step.x_prev).cpu(), frames

    def _add(self, images: Tensor, frames: Tensor) -> None:
        end = self.done + len(images)
        self.images[self.done : end], self.frames[:, :, self.done : end] = images, frames
        self.done = end
