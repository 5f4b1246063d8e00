"""Train a classifier on an imbalanced set by one of several methods."""

import random
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ddpm.classifier.fit import background_of, watch
from ddpm.classifier.model import Classifier, ClassifierParams, features_and_logits
from ddpm.compute.device import Runtime, sent, to_device
from ddpm.compute.randomness import generator
from ddpm.images.card import DataCard
from ddpm.images.pixels import to_float
from ddpm.images.splits import Split
from ddpm.pipeline.params import Section
from studies.rare_class.augment import augmented
from studies.rare_class.methods import Method, Sampled, shares

MIXED = 0.2  # both parameters of the Beta distribution of mixup


class LearnParams(Section):
    """Params of the study's classifiers, the same for every method: width and training."""

    channels: Annotated[int, Field(ge=1, le=1024)]
    steps: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=2, le=10_000)]
    lr: Annotated[float, Field(gt=0, le=1)]

    def classifier(self, seed: int) -> ClassifierParams:
        """Return the params of a classifier with this seed."""
        images = self.steps * self.batch_size
        return ClassifierParams(
            channels=self.channels, images=images, epochs=1, batch_size=self.batch_size, lr=self.lr, shift=0, seed=seed
        )


def learn(
    name: str,
    train: Split,
    sampled: Sampled | None,
    rare: Sequence[int],
    method: Method,
    data: DataCard,
    params: LearnParams,
    seed: int,
    runtime: Runtime,
) -> Classifier:
    """Train a new classifier by this method, under a progress bar called `name`.

    Args:
        rare: labels of the classes in which samples join the real images.

    Raises:
        UserError: the loss is not finite; or a class has too few images for the method.
    """
    pool, share = shares(train, sampled, rare, method, seed)
    torch.manual_seed(seed)
    model = Classifier(params.classifier(seed), data)
    losses = _losses(model, pool, share, background_of(train.images), method, params, runtime)
    watch(losses, name, params.steps, "learn.lr", params.lr)
    return model


def _losses(
    model: Classifier,
    pool: Split,
    share: Tensor,
    background: Tensor,
    method: Method,
    params: LearnParams,
    runtime: Runtime,
) -> Iterator[Tensor]:
    """Train in place with one cycle of the learning rate; yield the loss of each step, (), on the device."""
    to_device(model, runtime.device).train()
    prior = pool.labels.bincount(share, len(model.data.classes))
    weight, offset = (each.to(runtime.device) for each in by_class(prior, method))
    pool, background, upto = pool.to(runtime.device), background.to(runtime.device), share.cumsum(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=0.01)
    # With 0.2, a cycle of five steps would divide zero by zero.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, total_steps=params.steps, pct_start=0.21)
    for step in range(params.steps):
        rng = generator(model.params.seed, "learning", step)
        index = sent(_random_indices(upto, params.batch_size, rng), pool.images.device)
        images, y = pool.batch(index, runtime.device)
        x, mix = to_float(images), 1.0
        if method.augment:
            x = augmented(x, rng, background)
        if method.mixup:
            mix = random.Random(int(torch.randint(2**62, (), generator=rng))).betavariate(MIXED, MIXED)
        with runtime.autocast():
            loss = mixed_loss(model, x, y, mix, weight, offset)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        cycle.step()
        yield loss.detach()
    model.eval()


def _random_indices(upto: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Sample indices (count,) with replacement, by shares with the cumulative sum `upto`."""
    places = torch.rand(count, dtype=torch.float64, generator=rng) * upto[-1]
    return torch.searchsorted(upto, places, right=True).clamp(max=len(upto) - 1)


def by_class(prior: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    """Return how a method changes the loss: the weight of each class and the offset of its logit, (classes,) each.

    A class without images has weight 0. It has no offset, so that the classifier can learn that it is absent.
    """
    there = prior > 0
    one, none = torch.ones_like(prior), torch.zeros_like(prior)
    weight = torch.where(there, 1 / (prior * there.sum()), none) if method.weights else one
    offset = torch.where(there, prior.log(), none) if method.adjust else none
    return weight.float(), offset.float()


def mixed_loss(model: Classifier, x: Tensor, y: Tensor, mix: float, weight: Tensor, offset: Tensor) -> Tensor:
    """Compute the cross-entropy of images with a share 1 - `mix` of the previous image; targets are mixed likewise.

    Cross-entropy is linear in the target, so this is a mixture of two losses. A weighted loss is a weighted mean.
    """
    if mix == 1:
        return F.cross_entropy(model(x) + offset, y, weight)
    logits = model(torch.lerp(x.roll(1, 0), x, mix)) + offset
    return mix * F.cross_entropy(logits, y, weight) + (1 - mix) * F.cross_entropy(logits, y.roll(1), weight)


def confusion(model: Classifier, images: Tensor, labels: Tensor, device: torch.device) -> Tensor:
    """Count predictions, int64 (classes, classes): rows are true classes, columns are predicted ones."""
    classes = len(model.data.classes)
    found = features_and_logits(model, images, device)[1].argmax(1)
    return (labels * classes + found).bincount(minlength=classes**2).view(classes, classes)
