"""Train a classifier on a long-tailed subset by one of several methods."""

import itertools
import math
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2

from ddpm.diffusion.randomness import CPU, generator
from ddpm.images.splits import Split, to_float
from ddpm.processes.device import to_device
from exact_stages.params import Section

TOGETHER = 8  # images of a batch that one random augmentation is applied to, for speed


class LearnParams(Section):
    """Params of the compared classifiers: width and training."""

    channels: PositiveInt
    steps: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    check_every: PositiveInt


class Method(NamedTuple):
    """How a classifier learns from a long-tailed subset.

    balance: what makes up for the counts. oversample: each class is as frequent as the others. adjust: the log
        frequency is added to the logits (Menon et al. 2021, arXiv:2007.07314).
    augment: how images are varied. none; generic: crops and RandAugment (arXiv:1909.13719); expert: what suits digits.
    extra: what fills up the classes. none; generated: filtered samples; real: as many further real images.
    """

    balance: str
    augment: str
    extra: str


METHODS = [
    Method("adjust", "none", "none"),
    *(
        Method("oversample", augment, extra)
        for augment in ("none", "generic", "expert")
        for extra in ("none", "generated", "real")
    ),
]


class Outcome(NamedTuple):
    """What a classifier achieves: F1 of each class (classes,), its accuracy, and the step of the kept weights."""

    f1: Tensor
    accuracy: float
    kept_step: int


def learn(
    real: Split,
    extra: Split,
    method: Method,
    change: v2.Transform,
    pool: Split,
    test: Split,
    params: LearnParams,
    seed: int,
) -> Outcome:
    """Train a classifier on real and extra images, keep the weights with the lowest loss on the pool, and test them."""
    split, share, offset = learned_from(real, extra, method)
    classes = len(offset)
    torch.manual_seed(seed)
    network = to_device(classifier(tuple(split.images.shape[1:]), params.channels, classes), CPU)
    optimizer = torch.optim.AdamW(network.parameters(), lr=params.lr, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, total_steps=params.steps)
    rng, best, kept, kept_step = generator(seed, "batches"), float("inf"), network.state_dict(), 0
    for step in range(1, params.steps + 1):
        rows = torch.multinomial(share, params.batch_size, replacement=True, generator=rng)
        images, labels = split.take(rows)
        x = to_float(torch.cat([change(part) for part in images.split(TOGETHER)]))
        loss = F.cross_entropy(network(x) + offset, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        cycle.step()
        if step % params.check_every == 0:
            found = float(F.cross_entropy(logits_of(network, pool.images), pool.labels))
            if found < best:
                best, kept_step = found, step
                kept = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    predicted = logits_of(network, test.images).argmax(1)
    right = predicted == test.labels
    hits, given, true = (each.bincount(minlength=classes) for each in (predicted[right], predicted, test.labels))
    return Outcome(2 * hits / (given + true), float(right.double().mean()), kept_step)


def learned_from(real: Split, extra: Split, method: Method) -> tuple[Split, Tensor, Tensor]:
    """Return the images, the probability of each in a batch (N,), and each class's offset of the logit."""
    split = Split(torch.cat([real.images, extra.images]), torch.cat([real.labels, extra.labels]))
    labels, counts = split.labels, split.labels.bincount().double()
    share = torch.ones(len(labels), dtype=torch.float64)
    if method.balance == "oversample":
        share /= counts[labels]
    prior = counts / counts.sum()
    offset = prior.log() if method.balance == "adjust" else 0 * prior
    return split, share, offset.float()


def augmentation(name: str, sides: tuple[int, ...]) -> v2.Transform:
    """Return a random change of uint8 images (B, C, H, W), the same for all of them."""
    bilinear = InterpolationMode.BILINEAR
    by_name: dict[str, list[v2.Transform]] = {
        "none": [v2.Identity()],
        "generic": [v2.RandomCrop(sides, padding=min(sides) // 8), v2.RandAugment(interpolation=bilinear)],
        # Affine and elastic distortions: Simard et al. 2003, "Best practices for ... visual document analysis".
        "expert": [
            v2.RandomAffine(15, (0.07, 0.07), (0.85, 1.15), 10, interpolation=bilinear),
            v2.ElasticTransform(alpha=34.0, sigma=4.0),
        ],
    }
    return v2.Compose(by_name[name])


def classifier(shape: tuple[int, ...], channels: int, classes: int) -> nn.Sequential:
    """Build three convolutions with maximum pooling, dropout and a linear layer, (B, C, H, W) to (B, classes)."""
    layers: list[nn.Module] = []
    widths = (shape[0], channels, 2 * channels, 4 * channels)
    for before, after in itertools.pairwise(widths):
        convolution, pool = nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(2, ceil_mode=True)
        layers += [convolution, pool, nn.BatchNorm2d(after), nn.ReLU()]
    features = widths[-1] * math.prod(math.ceil(side / 8) for side in shape[1:])
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(features, classes))


def logits_of(network: nn.Sequential, images: Tensor) -> Tensor:
    """Return the logits (N, classes) of uint8 images (N, C, H, W); the network is in training mode afterwards."""
    network.eval()
    with torch.inference_mode():
        found = torch.cat([network(to_float(part)) for part in images.split(500)])
    network.train()
    return found
