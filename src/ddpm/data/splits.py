"""What the stages hand on: the preprocessed images of a split, of chosen classes, and sets of samples."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.data.images import to_uint8
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


def held_out_mask(images: Tensor, share: float, seed: int) -> Tensor:
    """Which of images (N, 1, 28, 28), uint8 or in [-1, 1], are held out, booleans (N,): about `share` of each class.

    An image is held out when its hash, of the seed and its 256 levels alone, is below `share`. So equal images are on
    one side whatever their labels, and an image that is added moves no other: a fixed number of them, of the smallest
    hashes in each class, would promise neither. The price is chance in their number, 1,200 +- 34 of 60,000 for 0.02.
    """
    key = f"{seed}/held out".encode()
    held_out = []
    for part in images.split(10_000):  # the levels of all would take the memory of several copies
        levels = part if part.dtype == torch.uint8 else to_uint8(part)
        rows = levels.flatten(1).contiguous().numpy()
        digests = (hashlib.blake2b(row, digest_size=8, key=key).digest() for row in rows)
        held_out += [int.from_bytes(digest, "big") < share * 2**64 for digest in digests]
    return torch.tensor(held_out, dtype=torch.bool)


def load_samples(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Samples, uint8 `images` (N, 1, 28, 28), with the kept frames `x_t` and `pred_x_start`, and their card.

    Those of a class-conditional model have `labels` (N,), of the classes that were asked for.

    Raises:
        UserError: the file is missing, damaged, or no set of samples.
    """
    return load_arrays(path, {"images", "x_t", "pred_x_start"}, {"labels"})
