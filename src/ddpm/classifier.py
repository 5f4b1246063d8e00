"""The digit classifier whose features the scores use: a small convolutional network, and its training."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.arrays import load_arrays, rebuild, save_arrays
from ddpm.console import UserError, progress
from ddpm.device import Runtime, to_device
from ddpm.labels import CLASSES
from ddpm.params import Section, parse
from ddpm.randomness import generator

NAMES = ("a", "b")  # recipes are chosen by the scores of a, those of b are reported


class ClassifierParams(Section):
    """Width and training of the classifier."""

    channels: Annotated[int, Field(ge=1, le=1024)]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    lr: Annotated[float, Field(gt=0, le=1)]
    shift: Annotated[int, Field(ge=0, le=4)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Classifier(nn.Module):
    """Three levels of two convolutions; the last level's mean over the pixels is the feature vector."""

    def __init__(self, params: ClassifierParams) -> None:
        super().__init__()
        self.params = params
        widths = [1, params.channels, 2 * params.channels, 4 * params.channels]
        self.levels = nn.Sequential(*map(_level, widths[:-1], widths[1:]))
        self.head = nn.Linear(widths[-1], CLASSES)

    @property
    def num_features(self) -> int:
        """Length of a feature vector."""
        return self.head.in_features

    def features(self, images: Tensor) -> Tensor:
        """Shapes: images (B, 1, 28, 28) in [-1, 1] -> (B, num_features)."""
        return self.levels(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: images (B, 1, 28, 28) in [-1, 1] -> logits (B, CLASSES)."""
        return self.head(self.features(images))


def _level(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two convolutions with BatchNorm and ReLU; the second halves the resolution."""
    layers: list[nn.Module] = []
    for width, stride in ((in_channels, 1), (out_channels, 2)):
        layers += [
            nn.Conv2d(width, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


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


@torch.inference_mode()
def features_and_logits(model: Classifier, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features (N, num_features) and logits (N, CLASSES) of images (N, 1, 28, 28) in [-1, 1], in float32 on the CPU."""
    to_device(model, device).eval()
    features, logits = [], []
    for batch in images.split(1000):
        seen = model.features(batch.to(device))
        features.append(seen.cpu())
        logits.append(model.head(seen).cpu())
    return torch.cat(features), torch.cat(logits)


def accuracy(model: Classifier, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Share of the images (N, 1, 28, 28) that get their label."""
    _, logits = features_and_logits(model, images, device)
    return float((logits.argmax(1) == labels).double().mean())


def save_classifier(path: Path, model: Classifier) -> None:
    """Write weights and params as safetensors."""
    save_arrays(path, dict(model.state_dict()), {"classifier": model.params.model_dump()})


def load_classifier(path: Path) -> Classifier:
    """Rebuild a classifier, in evaluation mode, from its file.

    Raises:
        UserError: the file is missing, damaged, or not a classifier.
    """
    weights, metadata = load_arrays(path)
    if "classifier" not in metadata:
        raise UserError(f"{path}: not a classifier file of this project")
    params = parse(ClassifierParams, metadata["classifier"], str(path))
    return rebuild(path, lambda: Classifier(params), weights).eval()
