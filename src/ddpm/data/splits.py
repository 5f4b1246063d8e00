"""What the stages hand on: the preprocessed images of a split, of chosen classes, and sets of samples."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.data.labels import CLASSES
from ddpm.runtime.arrays import load_arrays


class Split(NamedTuple):
    """Real images (N, 1, 28, 28) in [-1, 1] and their labels (N,), uint8."""

    images: Tensor
    labels: Tensor

    def take(self, index: Tensor | slice) -> "Split":
        """Some of them."""
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """All of them, on a device; labels as an index needs them."""
        return Split(self.images.to(device), self.labels.to(device, torch.int64))


def load_split(path: Path, classes: Iterable[int] = range(CLASSES)) -> Split:
    """The images of these classes, in the order of the file.

    Raises:
        UserError: the file is missing, damaged, or not a split.
    """
    arrays, _ = load_arrays(path, {"images", "labels"})
    wanted = torch.isin(arrays["labels"], torch.tensor([*classes]))
    return Split(arrays["images"], arrays["labels"]).take(wanted)


def load_samples(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Samples, uint8 `images` (N, 1, 28, 28), with the kept frames `x_t` and `pred_x_start`, and their card.

    Those of a class-conditional model have `labels` (N,), of the classes that were asked for.

    Raises:
        UserError: the file is missing, damaged, or no set of samples.
    """
    return load_arrays(path, {"images", "x_t", "pred_x_start"}, {"labels"})
