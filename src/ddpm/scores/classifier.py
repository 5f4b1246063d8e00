"""The classifier that supplies features to the scores: a small convolutional network, its recipe and its file."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.card import DataCard
from ddpm.images.splits import SplitFile, data_card, held_out_mask, held_out_share, to_float
from ddpm.processes.device import MAX_HEADER, rebuild, to_device
from ddpm.processes.workers import map_shards
from exact_stages.console import UserError
from exact_stages.params import Section, parse

FLIPS = 4  # none, across, upside down, both
SEEN_ON_CPU, SEEN_ON_GPU = 50_176, 784_000  # pixels in a batch: fits a CPU's caches; fills a GPU
SHARD = 16  # batches
NAMES = ("a", "b")  # a selects settings; b is only for reporting


class Recipe(Section):
    """How a classifier is built and trained, which its file keeps: a ruler must not change, so these are no params.

    images_seen: the length, in images. channels: width of the first level. epochs: the most passes over the images. lr:
    the peak of one cycle. shift: the largest shift of a training image, in pixels.
    """

    images_seen: Annotated[int, Field(ge=1, le=10**9)]
    channels: Annotated[int, Field(ge=1, le=1024)] = 32
    epochs: int = 40
    batch_size: int = 128
    lr: float = 0.004
    shift: int = 2
    seed: int = 0

    def epochs_of(self, count: int) -> int:
        """Return how many times each of `count` images is seen."""
        return max(1, min(self.epochs, round(self.images_seen / count)))


class Classifier(nn.Module):
    """A network of three levels, two convolutions each; the feature vector is the last level's mean over the pixels."""

    def __init__(self, recipe: Recipe, data: DataCard) -> None:
        super().__init__()
        self.recipe = recipe
        self.data = data
        widths = [data.shape[0], recipe.channels, 2 * recipe.channels, 4 * recipe.channels]
        self.levels = nn.Sequential(*map(_level, widths[:-1], widths[1:]))
        self.head = nn.Linear(widths[-1], len(data.classes) if self.knows_classes else FLIPS)

    @property
    def knows_classes(self) -> bool:
        """Tell whether the logits predict classes; with a single class they predict how an image is flipped."""
        return len(self.data.classes) > 1

    def features(self, images: Tensor) -> Tensor:
        """Compute the feature vectors: images (B, C, H, W) in [-1, 1] -> (B, 4 * channels)."""
        # A mean over channels-last tensors keeps the gradient in channels-last memory format.
        return self.levels(images).permute(0, 2, 3, 1).flatten(1, 2).mean(1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits: images (B, C, H, W) in [-1, 1] -> (B, classes)."""
        return self.head(self.features(images))


def _level(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build two convolutions with BatchNorm and ReLU; the second halves the resolution."""
    layers: list[nn.Module] = []
    for width, stride in ((in_channels, 1), (out_channels, 2)):
        layers += [
            nn.Conv2d(width, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def held_out(split_file: SplitFile) -> Tensor:
    """Return a mask, bool (N,), of the training images that no classifier of the pipeline is trained on."""
    return held_out_mask(split_file.split, split_file.groups, held_out_share(len(split_file.groups)), seed=0)


def features_and_logits(model: Classifier, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Compute features (N, D) and logits (N, classes) of uint8 images (N, C, H, W), in float32 on the CPU.

    Raises:
        UserError: a value is NaN or infinite, which finite weights do not rule out.
    """
    to_device(model, device).eval()
    pixels = SEEN_ON_CPU if device.type == "cpu" else SEEN_ON_GPU
    batches = images.split(max(1, pixels // (images.shape[2] * images.shape[3])))

    @torch.inference_mode()
    def seen(first: int) -> Tensor:
        part = [model.features(to_float(batch.to(device))) for batch in batches[first : first + SHARD]]
        return torch.cat(part)

    with torch.inference_mode():
        features = torch.cat([*map_shards(seen, range(0, len(batches), SHARD))])
        found = features.cpu(), model.head(features).cpu()
    if not all(each.isfinite().all() for each in found):
        raise UserError("classifier: its features of images are not finite; train it again")
    return found


def likeliest(logits: Tensor, classes: list[int]) -> Tensor:
    """Return the most probable of `classes` for each image, int64 (N,), from the logits of all classes (N, classes)."""
    return torch.tensor(classes)[logits[:, classes].argmax(1)]


def accuracy(model: Classifier, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Return the share of uint8 images (N, C, H, W) that are classified as their label."""
    _, logits = features_and_logits(model, images, device)
    return float((logits.argmax(1) == labels).double().mean())


def save_classifier(path: Path, model: Classifier) -> None:
    """Write weights, recipe and data card as safetensors."""
    facts = {"classifier": model.recipe.model_dump(), "data": model.data.model_dump(mode="json")}
    save_arrays(path, dict(model.state_dict()), facts)


def load_classifier(path: Path) -> Classifier:
    """Rebuild a classifier from its file, in evaluation mode.

    Raises:
        UserError: the file is missing, damaged, or not a classifier; or a weight is NaN or infinite.
    """
    weights, metadata = load_arrays(path, max_header=MAX_HEADER)
    if "classifier" not in metadata:
        raise UserError(f"{path}: not a classifier file of this project")
    weights = {name: each.float() if each.dtype is torch.float16 else each for name, each in weights.items()}
    recipe, data = parse(Recipe, metadata["classifier"], str(path)), data_card(path, metadata)
    return rebuild(path, lambda: Classifier(recipe, data), weights).eval()
