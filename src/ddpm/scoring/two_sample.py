"""Classifier two-sample test (C2ST; Lopez-Paz and Oquab 2017, arXiv:1610.06545).

A small network learns to tell samples from real images, and is tested on images that it has not seen. Accuracy 0.5
means that it cannot tell them apart; 1 means that every sample shows a trace. The Frechet distance misses some traces:
a veil of one level over the background hardly changes it.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.compute.device import Runtime, to_device
from ddpm.compute.randomness import generator

FOLDS, SEEDS = 5, 3
LEAST_IMAGES, MOST_IMAGES = 100, 10_000  # on each side: fewer say nothing, more take too long
STEPS, EPOCHS, BATCH, LR = 250, 20, 128, 0.004  # of each training; EPOCHS at most
DARK, BRIGHT = 10, 245  # levels below DARK become 0, above BRIGHT 255
MOST_CHANGED = 0.1  # share of the real pixels; 0.08 of MNIST


class TwoSample(NamedTuple):
    """The accuracy on unseen images: mean and standard deviation over the seeds."""

    accuracy: float
    accuracy_deviation: float


class Judge(nn.Module):
    """A network of three 3 x 3 convolutions with BatchNorm and ReLU, a mean over the pixels, and one logit.

    Each colour enters on three scales: linear, and logarithmic in the distance from either end. Otherwise it takes many
    epochs to see one level in 255.
    """

    scales: Tensor

    def __init__(self, channels: int, patch: int, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        level = torch.arange(256.0)
        ends = [torch.log2(1 + distance) / 4 - 1 for distance in (level, 255 - level)]
        self.register_buffer("scales", torch.stack([level / 127.5 - 1, *ends], dim=1))
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch)]
        before = 3 * channels * patch**2
        for width, stride in zip(widths, strides, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(before, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to logits (B,); a positive one means real."""
        x = F.embedding(images.int(), self.scales).movedim(4, 2).flatten(1, 2)
        return self.head(self.layers(x).mean((2, 3))).squeeze(1)


def strided(channels: int) -> Judge:
    """Build convolutions of 16, 32 and 64 channels, each of stride 2."""
    return Judge(channels, 1, (16, 32, 64), (2, 2, 2))


def patches(channels: int) -> Judge:
    """Build convolutions of 32, 64 and 64 channels on patches of 2 x 2 pixels; the first has stride 1, the others 2."""
    return Judge(channels, 2, (32, 64, 64), (1, 2, 2))


JUDGES: dict[str, Callable[[int], Judge]] = {"a": patches, "b": strided}  # a selects settings; b is for reporting


def two_sample_test(
    samples: Tensor, real: Tensor, judge: str, seed: int, runtime: Runtime, done: Callable[[], object] = lambda: None
) -> TwoSample:
    """Train networks to tell samples from real images, and test each on the fold of images that it has not seen.

    Args:
        samples: uint8 (N, C, H, W).
        real: as many real images.
        judge: one of JUDGES.
        done: called after each of the FOLDS * SEEDS trainings.
    """
    images = torch.cat([samples, real]).to(runtime.device)
    is_real = torch.cat([torch.zeros(len(samples)), torch.ones(len(real))]).to(runtime.device)
    found = []
    for index in range(SEEDS):
        rng = generator(seed, "two-sample test", index)
        order = torch.randperm(len(images), generator=rng).to(runtime.device)
        folds = order.tensor_split(FOLDS)
        scores = []
        for number, fold in enumerate(folds):
            others = torch.cat([*folds[:number], *folds[number + 1 :]])
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            model = _trained(JUDGES[judge](images.shape[1]), images[others], is_real[others], rng, runtime)
            with torch.inference_mode():
                logits = torch.cat([model(part) for part in images[fold].split(500)])
            scores.append(float(((logits > 0) == is_real[fold].bool()).double().mean()))
            done()
        found.append(statistics.fmean(scores))
    return TwoSample(statistics.fmean(found), statistics.stdev(found))


def _trained(model: Judge, images: Tensor, is_real: Tensor, rng: torch.Generator, runtime: Runtime) -> Judge:
    """Train with one cycle of the learning rate, in float32: faster on CPUs for so few channels."""
    to_device(model, runtime.device).train()
    size = min(BATCH, len(images))
    used = len(images) // size * size
    orders = [torch.randperm(len(images), generator=rng)[:used] for _ in range(min(EPOCHS, -(-STEPS * size // used)))]
    batches = torch.cat(orders).to(runtime.device).split(size)[:STEPS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=len(batches))
    for batch in batches:
        loss = F.binary_cross_entropy_with_logits(model(images[batch]), is_real[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        cycle.step()
    return model.eval()


def without_tone(images: Tensor) -> Tensor:
    """Set levels below DARK to 0 and above BRIGHT to 255, so that only shapes remain to be told apart."""
    return images.masked_fill(images < DARK, 0).masked_fill(images > BRIGHT, 255)


def tone_shares(images: Tensor) -> dict[str, float]:
    """Return the shares of black, nearly black and white pixel values."""
    counts = torch.bincount(images.flatten(), minlength=256).double() / images.numel()
    return {
        "level_0": float(counts[0]),
        f"levels_1_to_{DARK - 1}": float(counts[1:DARK].sum()),
        "level_255": float(counts[255]),
    }


def two_sample_scores(
    samples: Tensor, real: Tensor, judge: str, seed: int, runtime: Runtime, done: Callable[[], object] = lambda: None
) -> dict[str, dict[str, float | None]]:
    """Run the tests with up to MOST_IMAGES on each side; see docs/reference/scores.md.

    The baseline tells two disjoint random sets of real images apart. A test with fewer than LEAST_IMAGES is null.

    Args:
        samples: uint8 (N, C, H, W), independent of one another.
        real: real images, uint8 (M, C, H, W).
    """
    count = min(len(samples), len(real), MOST_IMAGES)
    order = torch.randperm(len(real), generator=generator(seed, "two-sample real images"))
    samples, first, second = samples[:count], real[order[:count]], real[order[count : 2 * count]]

    def test(one: Tensor, other: Tensor, there: bool) -> TwoSample | None:
        return two_sample_test(one, other, judge, seed, runtime, done) if there and count >= LEAST_IMAGES else None

    plain, halves = test(samples, first, True), test(second, first, len(second) == count)
    cut, cut_first = without_tone(samples), without_tone(first)
    shapes = test(cut, cut_first, bool((cut_first != first).double().mean() <= MOST_CHANGED))
    return {
        "samples": {**_row("two_sample", plain), **_row("two_sample_without_tone", shapes), **tone_shares(samples)},
        "baseline": {**_row("two_sample", halves), **tone_shares(first)},
    }


def _row(name: str, test: TwoSample | None) -> dict[str, float | None]:
    return {f"{name}_{field}": getattr(test, field, None) for field in TwoSample._fields}
