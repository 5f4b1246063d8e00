"""Sample images, score them against the workspace's training images by its two classifiers, and draw rows of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.classifier.model import NAMES, accuracy, features_and_logits, load_classifier
from ddpm.compute.device import Runtime
from ddpm.compute.randomness import generator
from ddpm.images.splits import load_split
from ddpm.model import LoadedModel
from ddpm.pictures.figures import tile
from ddpm.sample import SamplerParams, fitted, sample_images, sample_labels
from ddpm.scoring.components import principal_components
from ddpm.scoring.scores import frechet_distance
from ddpm.scoring.two_sample import MOST_IMAGES, two_sample_test, without_tone

MODELS = Path("models")
PROCESSED = Path("data/processed")
SEED = 2  # of samples; differs from the gallery's and the population's


class Scorer:
    """The two classifiers, and their features of the training images."""

    def __init__(self, runtime: Runtime, labels: Sequence[int] | None = None) -> None:
        """Compute the features of the images of these classes, by default of all."""
        self.runtime = runtime
        self.paths = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
        self.classifiers = {name: load_classifier(path) for name, path in self.paths.items()}
        both = (load_split(PROCESSED / f"{split}.safetensors") for split in ("train", "test"))
        train, self.test = ((each.split if labels is None else each.of(labels)) for each in both)
        self.images = train.images
        self.train = {name: self._features(name, train.images) for name in NAMES}
        self.components = principal_components(train.images)
        self.train_pixels = self.components(train.images)

    def real(self, subset: str, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` test images, uint8 (count, C, H, W), and their labels; names give other random subsets."""
        order = torch.randperm(len(self.test.images), generator=generator(SEED, subset))
        return self.test.take(order[:count])

    def others(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the distance on principal components of pixels, and the share that classifier a labels as `labels`."""
        return {
            "frechet_pixels": round(frechet_distance(self.train_pixels, self.components(images)), 4),
            "as_asked": round(accuracy(self.classifiers["a"], images, labels, self.runtime.device), 4),
        }

    def frechet(self, images: Tensor) -> dict[str, float]:
        """Return the distance of uint8 images (N, C, H, W) from the training images, by features of each classifier."""
        return {
            f"frechet_{name}": round(frechet_distance(self.train[name], self._features(name, images)), 4)
            for name in NAMES
        }

    def two_sample(self, images: Tensor) -> dict[str, float]:
        """Return how well judge a tells images from as many random training images, and so without tone."""
        order = torch.randperm(len(self.images), generator=generator(SEED, "two-sample real images"))
        count = min(len(images), len(self.images), MOST_IMAGES)
        both = images[:count], self.images[order[:count]]
        found = {"two_sample_a": both, "two_sample_a_without_tone": (without_tone(both[0]), without_tone(both[1]))}
        return {name: round(two_sample_test(*each, "a", SEED, self.runtime)[0], 4) for name, each in found.items()}

    def _features(self, name: str, images: Tensor) -> Tensor:
        return features_and_logits(self.classifiers[name], images, self.runtime.device)[0]


def sampled(loaded: LoadedModel, params: SamplerParams, count: int, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Sample images as they would be written, uint8 (count, C, H, W), and their labels."""
    params = fitted(params, loaded.card)
    batches = sample_images(loaded, params, SEED, range(count), runtime, "sample")
    return torch.cat([images for _, images in batches]), sample_labels(loaded.card, params, SEED, range(count))


def picture_rows(rows: Mapping[str, Tensor]) -> Figure:
    """Draw a titled row for each set of grey images, uint8 (N, 1, H, W)."""
    size = (9, 10 * len(rows) / len(next(iter(rows.values()))))
    figure, axes = plt.subplots(len(rows), figsize=size, layout="constrained", squeeze=False)
    for (axis,), (title, images) in zip(axes, rows.items(), strict=True):
        axis.imshow(tile(images, len(images)).permute(1, 2, 0), cmap="gray", vmin=0, vmax=255)
        axis.set_ylabel(title, rotation=0, va="center", ha="right")
        axis.set(xticks=[], yticks=[])
    return figure
