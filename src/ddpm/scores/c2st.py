"""Classifier two-sample test (C2ST; Lopez-Paz and Oquab 2017, arXiv:1610.06545).

A small network learns to tell samples from real images, and is tested on images that it has not seen. Accuracy 0.5
means that it cannot tell them apart; 1 means that every sample shows a trace. The Frechet distance misses some traces:
a veil of one level over the background hardly changes it.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.diffusion.randomness import generator
from ddpm.processes.device import Runtime, to_device
from ddpm.scores.distances import NONE, Estimate, digest, share_of

MOST = 0.6  # of a side, in a half
LEAST_IMAGES = 100  # on each side: fewer say nothing
STEPS, EPOCHS, BATCH, LR = 650, 60, 128, 0.004  # of each training; EPOCHS at most
LEVELS = {"c2st_accuracy": 256, "c2st_8_levels_accuracy": 8, "c2st_black_and_white_accuracy": 2}
TESTS = [*(("samples", key) for key in LEVELS), ("unfiltered", "c2st_8_levels_accuracy")]
BETWEEN, MOST_BETWEEN = (64, 192), 0.1  # levels of real images, and their share, beyond which these are no shapes


class C2ST(NamedTuple):
    """The accuracy on unseen images, and the indices of the unseen samples, (N,), surely samples first."""

    accuracy: Estimate
    most_certain: Tensor


NO_TEST = C2ST(NONE, torch.empty(0, dtype=torch.int64))


class C2STClassifier(nn.Module):
    """A network of three 3 x 3 convolutions with BatchNorm and ReLU, a mean over the pixels, and one logit.

    Each colour enters on three scales: linear, and logarithmic in the distance from either end. Otherwise it takes many
    epochs to see one level in 255. It also enters as a learned vector for each level, which shows levels that are rarer
    or more frequent than their neighbours. The first convolution has stride 1: halving an image hides faint traces.
    """

    scales: Tensor

    def __init__(self, channels: int, widths: tuple[int, ...], learned: int) -> None:
        super().__init__()
        level = torch.arange(256.0)
        ends = [torch.log2(1 + distance) / 4 - 1 for distance in (level, 255 - level)]
        self.register_buffer("scales", torch.stack([level / 127.5 - 1, *ends], dim=1))
        self.levels = nn.Embedding(256, learned)
        layers: list[nn.Module] = []
        before = (3 + learned) * channels
        for index, width in enumerate(widths):
            stride = 2 if index else 1
            layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(before, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to logits (B,); a positive one means real."""
        table = torch.cat([self.scales, self.levels.weight / 2], dim=1)
        x = self.layers(F.embedding(images.int(), table).movedim(4, 2).flatten(1, 2))
        return self.head(x.mean((2, 3))).squeeze(1).float()


C2ST_CLASSIFIERS = {  # widths of the convolutions, length of the learned vectors; a selects settings, b reports
    "a": ((48, 32, 64), 4),
    "b": ((32, 32, 64), 8),
}


def run_c2st(samples: Tensor, real: Tensor, c2st_classifier: str, seed: int, runtime: Runtime) -> C2ST:
    """Train a network on half of samples and as many real images, uint8 (N, C, H, W), and test it on the rest.

    With fewer than LEAST_IMAGES there is no test.

    Given the network, the tested images are independent of one another, so the accuracy has the error of shares. With
    folds that are tested in turn, the error would be larger: each two images meet twice, once from either side.
    """
    if len(samples) < LEAST_IMAGES:
        return NO_TEST
    images = torch.cat([samples, real]).to(runtime.device)
    is_real = torch.arange(len(images), device=runtime.device) >= len(samples)
    learned, tested = halves(samples, real, seed)
    rng = generator(seed, "two-sample test of a half")
    torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
    network = C2STClassifier(images.shape[1], *C2ST_CLASSIFIERS[c2st_classifier])
    runtime = runtime.of(images)
    model = _trained(network, images[learned], is_real[learned].float(), rng, runtime)
    with torch.inference_mode(), runtime.autocast():
        logits = torch.cat([model(part) for part in images[tested].split(500)])
    order = tested[logits.argsort().cpu()]
    return C2ST(balanced_accuracy((logits > 0) == is_real[tested], is_real[tested]), order[order < len(samples)])


def balanced_accuracy(right: Tensor, is_real: Tensor) -> Estimate:
    """Estimate the mean of the accuracies on samples and on real images, from flags of independent images (N,)."""
    sides = [share_of(right[is_real]), share_of(right[~is_real])]
    return Estimate(sum(each.value or 0 for each in sides) / 2, math.hypot(*(each.error or 0 for each in sides)) / 2)


def halves(samples: Tensor, real: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Divide the indices of samples and real images, one behind the other, into random halves.

    They divide each side evenly: if more samples were tested, fewer would be learned, which would say "real" to them.
    Equal images are in one half, so that none is tested by a network that has learned it. But they fill at most MOST of
    a side there: else samples that are all equal would be tested by a network that has seen none.
    """
    images = torch.cat([samples, real])
    found: list[list[int]] = [[], []]
    sizes = [[0, 0], [0, 0]]
    half_of: dict[bytes, int] = {}
    for index in torch.randperm(len(images), generator=generator(seed, "two-sample test")).tolist():
        side, image = sizes[index >= len(samples)], digest(images[index])
        half = half_of.get(image)
        if half is None or side[half] >= MOST * len(samples):
            half = half_of[image] = side.index(min(side))
        found[half].append(index)
        side[half] += 1
    return torch.tensor(found[0]), torch.tensor(found[1])


def _trained(
    model: C2STClassifier, images: Tensor, is_real: Tensor, rng: torch.Generator, runtime: Runtime
) -> C2STClassifier:
    """Train with one cycle of the learning rate."""
    to_device(model, runtime.device).train()
    size = min(BATCH, len(images))
    used = len(images) // size * size
    orders = [torch.randperm(len(images), generator=rng)[:used] for _ in range(min(EPOCHS, -(-STEPS * size // used)))]
    batches = torch.cat(orders).to(runtime.device).split(size)[:STEPS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=len(batches))
    for batch in batches:
        with runtime.autocast():
            loss = F.binary_cross_entropy_with_logits(model(images[batch]), is_real[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        cycle.step()
    return model.eval()


def quantised(images: Tensor, levels: int) -> Tensor:
    """Reduce uint8 images to 2 to 256 levels, each from as many of the 256, and spread them from 0 to 255."""
    return (images.int() // (256 // levels) * 255 // (levels - 1)).to(torch.uint8)


def c2st_pairs(rows: Mapping[str, Tensor], real: Tensor) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Choose what the tests tell apart, by row and key; see docs/reference/scores.md.

    Images whose two levels are no shapes have no such test: its pair is empty.

    Args:
        rows: images uint8 (N, C, H, W), independent of one another, of which the rows in TESTS are tested.
        real: as many real images.
    """
    no_shapes = ((real >= BETWEEN[0]) & (real < BETWEEN[1])).double().mean() > MOST_BETWEEN
    pairs = {}
    for row, key in TESTS:
        if row in rows:
            count = 0 if LEVELS[key] == 2 and no_shapes else len(real)
            pairs[row, key] = quantised(rows[row][:count], LEVELS[key]), quantised(real[:count], LEVELS[key])
    return pairs
