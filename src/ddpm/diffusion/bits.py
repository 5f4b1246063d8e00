"""Score a model by the bits per dimension of images: the variational bound, image by image, in several processes."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ddpm.diffusion.likelihood import Bound, variational_bound
from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.randomness import generator
from ddpm.images.splits import Split, to_float
from ddpm.processes.device import Runtime
from ddpm.processes.workers import add_progress, map_shards
from exact_stages.console import progress

BATCH = 100
TERMS = 25  # timesteps evaluated for each image
SEED = 0  # of images, timesteps and noise


def bits_per_dimension(
    loaded: LoadedModel, splits: Mapping[str, Split], most: int, device: torch.device
) -> dict[str, object]:
    """Bound equally many random images of each split, at most `most`.

    The network runs in float32, and gets their labels.
    """
    denoiser = loaded.denoiser(Runtime(device, torch.float32))
    terms = min(TERMS, loaded.schedule.timesteps - 1)
    count = min(most, *(len(split.images) for split in splits.values()))

    @torch.inference_mode()
    def denoise(labels: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return denoiser(*(each.to(device) for each in (x_t, t, labels))).x_start.cpu()

    def bound(shard: tuple[str, list[int]]) -> Bound:
        name, batch = shard
        noise = [generator(SEED, f"likelihood {name} image", index) for index in batch]
        images, labels = splits[name].take(torch.tensor(batch))
        found = variational_bound(partial(denoise, labels), loaded.schedule, to_float(images), terms, noise)
        add_progress(len(batch))
        return found

    shards: list[tuple[str, list[int]]] = []
    for name, split in splits.items():
        order = torch.randperm(len(split.images), generator=generator(SEED, f"likelihood {name}"))
        shards += [(name, batch.tolist()) for batch in order[:count].split(BATCH)]
    with progress(desc="likelihood", total=len(splits) * count, unit="img") as bar:
        bounds = [*map_shards(bound, shards, bar.update)]
    scores: dict[str, object] = {"images": count, "terms": terms}
    for name in splits:
        own = [each for (split, _), each in zip(shards, bounds, strict=True) if split == name]
        scores[name] = summary(Bound(*map(torch.cat, zip(*own, strict=True))))
    return scores


def summary(bound: Bound) -> dict[str, float]:
    """Return the mean bits per dimension, their standard error over the images, and the mean of each part."""
    means = {f"{name}_bits": round(part.mean().item(), 5) for name, part in bound._asdict().items() if name != "total"}
    error = bound.total.std().item() / len(bound.total) ** 0.5
    return {"bits_per_dim": round(bound.total.mean().item(), 5), "standard_error": round(error, 5), **means}
