"""Training the classifier whose features the scores use."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.networks.classifier import Classifier, ClassifierParams
from ddpm.runtime.console import UserError, progress
from ddpm.runtime.device import Runtime, to_device
from ddpm.runtime.randomness import generator


def fit_classifier(name: str, images: Tensor, labels: Tensor, params: ClassifierParams, runtime: Runtime) -> Classifier:
    """A new classifier, trained under a progress bar called `name`; see train_classifier.

    Raises:
        UserError: the loss is not finite.
    """
    torch.manual_seed(params.seed)
    model = Classifier(params)
    steps = params.epochs * (len(images) // params.batch_size)
    losses = train_classifier(model, images, labels, params, runtime)
    with progress(losses, desc=name, total=steps, unit="step") as bar:
        for loss in bar:
            if not math.isfinite(loss):
                raise UserError(f"classifier.lr: the loss is {loss}; try less than {params.lr}")
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    return model


def train_classifier(
    model: Classifier, images: Tensor, labels: Tensor, params: ClassifierParams, runtime: Runtime
) -> Iterator[float]:
    """Train in place with one cycle of the learning rate; yields the loss of every step, read from the device.

    Every batch is shifted by up to `params.shift` pixels, so that features do not hang on exact positions.

    Raises:
        ValueError: there are fewer images than batch_size.
    """
    if len(images) < params.batch_size:
        raise ValueError(f"batch_size is {params.batch_size}, but there are only {len(images)} training images")
    to_device(model, runtime.device).train()
    images, labels = images.to(runtime.device), labels.to(runtime.device, torch.long)
    steps = len(images) // params.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=0.01)
    # With 0.2, a cycle of five steps would divide zero by zero.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, total_steps=steps * params.epochs, pct_start=0.21)
    for epoch in range(params.epochs):
        source = generator(params.seed, "classifier", epoch)
        order = torch.randperm(len(images), generator=source)
        for batch in order[: steps * params.batch_size].split(params.batch_size):
            x, y = images[batch.to(runtime.device)], labels[batch.to(runtime.device)]
            dx, dy = torch.randint(-params.shift, params.shift + 1, (2,), generator=source).tolist()
            with runtime.autocast():
                loss = F.cross_entropy(model(_shift(x, dx, dy)), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            cycle.step()
            yield loss.item()
    model.eval()


def _shift(images: Tensor, dx: int, dy: int) -> Tensor:
    """Move the images by whole pixels; the background, -1, comes in at the edges."""
    size = images.shape[-1]
    margin = max(abs(dx), abs(dy))
    padded = F.pad(images, (margin,) * 4, value=-1.0)
    return padded[..., margin + dy : margin + dy + size, margin + dx : margin + dx + size]
