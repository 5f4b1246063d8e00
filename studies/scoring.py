"""Sample images, score them against the workspace's training images by its two classifiers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ddpm.classifier.model import NAMES
from ddpm.compute.device import Runtime
from ddpm.compute.randomness import generator
from ddpm.images.splits import load_split
from ddpm.model import LoadedModel
from ddpm.sampling.params import SamplerParams, fitted, sample_labels
from ddpm.sampling.sets import sample_images
from ddpm.scoring.evaluation import evaluate

MODELS = Path("models")
PROCESSED = Path("data/processed")
SCORES = {  # by name in a study's rows
    "as_asked": "conditional_accuracy",
    "c2st_a": "c2st_accuracy",
    "c2st_a_black_and_white": "c2st_black_and_white_accuracy",
}
SEED = 2  # of samples; differs from the gallery's and the population's


class Scorer:
    """The workspace's real images and classifiers."""

    def __init__(self, runtime: Runtime, labels: Sequence[int] | None = None) -> None:
        """Take the images of these classes, by default of all."""
        self.runtime = runtime
        self.paths = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
        both = [load_split(PROCESSED / f"{split}.safetensors") for split in ("train", "test")]
        self.classes = [*range(len(both[0].card.classes))] if labels is None else [*labels]
        self.train, self.test = (each.of(self.classes) for each in both)

    def real(self, subset: str, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` test images, uint8 (count, C, H, W), and their labels; names give other random subsets."""
        order = torch.randperm(len(self.test.images), generator=generator(SEED, subset))
        return self.test.take(order[:count])

    def scores(self, images: Tensor, labels: Tensor | None) -> dict[str, float | None]:
        """Score samples, uint8 (N, C, H, W), as the stage does, but by the classifiers a, the C2ST one too."""
        files = {name: self.paths[name] for name in reversed(NAMES)}  # all but distances are by the last
        found = evaluate((images, labels), self.test, self.train, self.classes, files, self.runtime, "a").scores
        row = {f"frechet_{name}": found[name]["samples"]["frechet"] for name in (*NAMES, "pixels")}
        for name, key in SCORES.items():
            row[name] = found["samples"].get(key)
        return row


def sampled(loaded: LoadedModel, params: SamplerParams, count: int, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Sample images as they would be written, uint8 (count, C, H, W), and their labels."""
    params = fitted(params, loaded.card)
    batches = sample_images(loaded, params, SEED, range(count), runtime, "sample")
    return torch.cat([images for _, images in batches]), sample_labels(loaded.card, params, SEED, range(count))
