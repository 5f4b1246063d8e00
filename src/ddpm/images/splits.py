"""What the stages hand on: the preprocessed images of a split, of chosen classes, and sets of samples."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.pipeline.arrays import load_arrays, save_streamed
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import parse

CHUNK = 10_000
LEAST_TEST = 6  # of fewer test images nothing is left that the scores measure
MOST_DROPPED = 0.05  # of the images, in the short last batch of an epoch


class Split(NamedTuple):
    """Real images, uint8 (N, C, H, W), and their labels (N,), int64."""

    images: Tensor
    labels: Tensor

    def take(self, index: Tensor | slice) -> "Split":
        """Some of them; the index is on their device."""
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """On a device, but for images that would take more than half of a GPU's free memory: they go batch by batch."""
        return Split(self.images.to(device), self.labels.to(device)) if _fits(self.images.nbytes, device) else self

    def batch(self, index: Tensor | slice, device: torch.device) -> "Split":
        """Some of them on the device; to a GPU they go without making anyone wait."""
        found = self.take(index)
        if device.type != "cuda" or found.images.is_cuda:
            return found
        return Split(*(each.pin_memory().to(device, non_blocking=True) for each in found))


class Subset(NamedTuple):
    """Some images of a split, which are copied batch by batch: those of a mapped file stay on the disk.

    rows: their indices in the split (N,). labels: theirs (N,), int64.
    """

    split: Split
    rows: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split | Subset":
        """On a GPU, these images alone; see `Split.to`."""
        if device.type == "cpu" or not _fits(len(self.rows) * self.split.images[:1].nbytes, device):
            return self
        return self.split.take(self.rows).to(device)

    def batch(self, index: Tensor, device: torch.device) -> Split:
        """Some of them on the device, see `Split.batch`."""
        return self.split.batch(self.rows[index], device)


class Processed(NamedTuple):
    """A split as the stage preprocess leaves it.

    groups: of each image the index of the one that decides on which side of a split it is, (N,), see
    `twins.twin_groups`. test_counts: how many test images of each class there are.
    """

    card: DataCard
    split: Split
    groups: Tensor
    test_counts: tuple[int, ...]

    def of(self, labels: Sequence[int]) -> Split:
        """The images of these classes, in the order of the file; all of them are not copied."""
        chosen = torch.isin(self.split.labels, torch.tensor([*labels]))
        return self.split if chosen.all() else self.split.take(chosen)


def save_split(
    path: Path, card: DataCard, labels: Tensor, groups: Tensor, test_counts: Sequence[int], images: Iterable[Tensor]
) -> None:
    """Write a split whose images, uint8 (N, C, H, W), come in parts, so that they need not be in memory together."""
    facts = {"data": card.model_dump(mode="json"), "test_counts": list(test_counts)}
    arrays = {"labels": labels, "groups": groups}
    save_streamed(path, arrays, ("images", (len(labels), *card.shape), images), facts)


def load_split(path: Path) -> Processed:
    """What `save_split` wrote.

    Raises:
        UserError: the file is missing, damaged, or not a split.
    """
    arrays, metadata = load_arrays(path, {"images", "labels", "groups"})
    card = data_card(path, metadata)
    images, labels, groups = arrays["images"], arrays["labels"], arrays["groups"]
    count = labels.numel()
    whole = images.dtype == torch.uint8 and images.shape == (count, *card.shape) and count
    indices = all(each.dtype == torch.int64 and each.shape == (count,) for each in (labels, groups))
    classes, counts = len(card.classes), metadata.get("test_counts")
    whole = whole and indices and _within(labels, classes) and _within(groups, count)
    if not (whole and _are_indices(counts, 2**62) and len(counts) == classes):
        raise UserError(f"{path}: its arrays are not those of a split; `dvc repro` makes it anew")
    return Processed(card, Split(images, labels), groups, tuple(counts))


def data_card(path: Path, metadata: dict[str, Any]) -> DataCard:
    """The data card in a file's metadata.

    Raises:
        UserError: there is none, or it is wrong.
    """
    if "data" not in metadata:
        raise UserError(f"{path}: has no data card; `dvc repro` makes it anew")
    return parse(DataCard, metadata["data"], str(path), "data")


def hashed_places(images: Tensor, key: str) -> Tensor:
    """A place in [0, 1) for each of uint8 images (N, C, H, W), (N,), float64: a hash of the key and its levels alone.

    So equal images have one place whatever their labels, and an image that is added moves no other: a fixed number of
    them, of the least places in each class, would promise neither. The price is chance in their number.
    """
    found: list[float] = []
    for part in images.split(CHUNK):
        rows = part.flatten(1).contiguous().numpy()
        digests = (hashlib.blake2b(row, digest_size=8, key=key.encode()).digest() for row in rows)
        found += [int.from_bytes(digest, "big") / 2**64 for digest in digests]
    return torch.tensor(found, dtype=torch.float64)


def even_batch(count: int, most: int) -> int:
    """The size of the batches in which an epoch takes so many images, of which the short last one is dropped.

    It is `most`, but where more than MOST_DROPPED would be dropped, the size from there down to its half that drops
    fewest; or all images, if these are fewer.
    """
    if count <= most:
        return count
    if count % most <= MOST_DROPPED * count:
        return most
    return min(range(most, max(min(2, most), most // 2) - 1, -1), key=lambda size: count % size)


def held_out_mask(images: Tensor, groups: Tensor, share: float, seed: int) -> Tensor:
    """Which of uint8 images (N, C, H, W) are held out, booleans (N,): about `share` of each class.

    Of 60,000 these are 1,200 +- 34 for 0.02. The place of an image is that of its group.
    """
    return hashed_places(images, f"{seed}/held out")[groups] < share


def load_samples(path: Path) -> tuple[dict[str, Tensor], DataCard, dict[str, Any]]:
    """Samples, uint8 `images` (N, C, H, W), with the kept frames `x_t` and `pred_x_start`; what they show; their facts.

    Those of a class-conditional model have `labels` (N,), of the classes that were asked for.

    Raises:
        UserError: the file is missing, damaged, or no set of samples.
    """
    arrays, metadata = load_arrays(path, {"images", "x_t", "pred_x_start"}, {"labels"})
    card, classes, kept_t = data_card(path, metadata), metadata.get("classes"), metadata.get("kept_t")
    facts = _are_indices(classes, len(card.classes)) and classes
    if not (facts and _are_indices(kept_t, 2**62) and _are_samples(arrays, card, len(kept_t))):
        raise UserError(f"{path}: its arrays are not those of a set of samples; `dvc repro` makes it anew")
    return arrays, card, metadata


def _fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes take at most half of a GPU's free memory; others have room."""
    return device.type != "cuda" or 2 * size <= torch.cuda.mem_get_info(device)[0]


def _are_samples(arrays: dict[str, Tensor], card: DataCard, frames: int) -> bool:
    count = arrays["images"].shape[0] if arrays["images"].dim() else 0
    shapes = {"images": (count, *card.shape)} | dict.fromkeys(("x_t", "pred_x_start"), (frames, count, *card.shape))
    pixels = all(arrays[name].dtype == torch.uint8 and arrays[name].shape == shape for name, shape in shapes.items())
    labels = arrays.get("labels", torch.zeros(count, dtype=torch.int64))
    return pixels and labels.dtype == torch.int64 and labels.shape == (count,) and _within(labels, len(card.classes))


def _are_indices(values: object, end: int) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers below `end`."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < end for value in values)


def _within(values: Tensor, end: int) -> bool:
    return bool(((values >= 0) & (values < end)).all())
