"""Read and write the image files that stages pass on: train and test splits, and sets of samples.

Images are uint8 in files and float32 in [-1, 1] in the network.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ddpm.images.arrays import load_arrays, save_arrays, save_streamed
from ddpm.images.card import DataCard
from exact_stages.console import UserError
from exact_stages.params import parse

CHUNK = 10_000
LEAST_TEST = 6  # test images; the scores need as many
MOST_DROPPED = 0.05  # share of the images in the short last batch of an epoch
HELD_OUT, MOST_HELD_OUT = 0.02, 0.1  # least and largest share of held-out images
LEAST_IMAGES, MOST_IMAGES = 200, 1200  # held-out images: fewer miss the minimum of the loss, more only cost time


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 levels to float32 in [-1, 1]."""
    return (images.to(torch.float32) / 255 - 0.5) / 0.5


def to_uint8(images: Tensor) -> Tensor:
    """Convert floats in [-1, 1] to uint8 levels: clip, then round to the nearest."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class Split(NamedTuple):
    """Real images, uint8 (N, C, H, W), and their labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def take(self, index: Tensor | slice) -> "Split":
        """Select images and labels; the index is on their device."""
        if isinstance(index, Tensor) and index.dtype == torch.int64:  # several times faster than images[index]
            return Split(self.images.index_select(0, index), self.labels.index_select(0, index))
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """Copy the split to a device, unless it would take more than half of a GPU's free memory."""
        return Split(self.images.to(device), self.labels.to(device)) if _fits(self.images.nbytes, device) else self

    def batch(self, index: Tensor | slice, device: torch.device) -> "Split":
        """Copy a batch to a device, asynchronously to a GPU."""
        found = self.take(index)
        if device.type != "cuda" or found.images.is_cuda:
            return found
        return Split(*(each.pin_memory().to(device, non_blocking=True) for each in found))

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw random images in [-1, 1], and their labels, on the device of the generator."""
        chosen = torch.randint(len(self.images), (count,), generator=rng, device=rng.device)
        images, labels = self.batch(chosen.to(self.images.device), rng.device)
        return to_float(images), labels


class SplitFile(NamedTuple):
    """A split that the stage preprocess has written.

    groups: for each image, the index of the near-duplicate that decides its side of a further split, (N,), see
        `near_duplicates.near_duplicate_groups`.
    test_counts: the number of test images of each class.
    """

    card: DataCard
    split: Split
    groups: Tensor
    test_counts: tuple[int, ...]

    def of(self, labels: Sequence[int]) -> Split:
        """Return the images of these classes in file order; copy nothing if all are chosen."""
        chosen = torch.isin(self.split.labels, torch.tensor([*labels]))
        return self.split if chosen.all() else self.split.take(chosen)

    def check_tested(self, names: Sequence[str | int], where: str) -> None:
        """Check that the named classes, all if none is, have enough test images for the scores.

        Raises:
            UserError: they have too few, or a name is unknown; the message begins with `where`.
        """
        if (tested := sum(self.test_counts[label] for label in self.card.labels(names, where))) < LEAST_TEST:
            raise UserError(
                f"{where}: these have {tested} test images, but the scores need {LEAST_TEST}; add classes or images"
            )


def save_split(
    path: Path, card: DataCard, labels: Tensor, groups: Tensor, test_counts: Sequence[int], images: Iterable[Tensor]
) -> None:
    """Write a split; its images, uint8 (N, C, H, W), come in parts to save memory."""
    facts = {"data": card.model_dump(mode="json"), "test_counts": list(test_counts)}
    arrays = {"labels": labels, "groups": groups}
    save_streamed(path, arrays, ("images", (len(labels), *card.shape), images), facts)


def load_split(path: Path) -> SplitFile:
    """Read a split that `save_split` wrote.

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
        raise UserError(f"{path}: not a valid split; `dvc repro` makes it again")
    return SplitFile(card, Split(images, labels), groups, tuple(counts))


def data_card(path: Path, metadata: dict[str, Any]) -> DataCard:
    """Return the data card in a file's metadata.

    Raises:
        UserError: the card is missing or invalid.
    """
    if "data" not in metadata:
        raise UserError(f"{path}: has no data card; `dvc repro` makes it again")
    return parse(DataCard, metadata["data"], str(path), "data")


def hashed_places(images: Tensor, key: str) -> Tensor:
    """Hash each of uint8 images (N, C, H, W), with a key, to a place in [0, 1), (N,), float64.

    Equal images have equal places, and adding an image moves no other. So a share of the images is chosen by a
    threshold on their places, although its size then varies by chance.
    """
    found = []
    for part in images.split(CHUNK):
        rows = part.flatten(1).contiguous().numpy()
        digests = b"".join(hashlib.blake2b(row, digest_size=8, key=key.encode()).digest() for row in rows)
        found.append(np.frombuffer(digests, ">u8") / 2**64)
    return torch.from_numpy(np.concatenate(found))


def even_batch(count: int, most: int) -> int:
    """Return the batch size for an epoch of `count` images that drops its short last batch.

    It is `most` or, if fewer, `count`. If `most` would drop more than MOST_DROPPED, it is the size from `most` down to
    half of it that drops the fewest.
    """
    if count <= most:
        return count
    if count % most <= MOST_DROPPED * count:
        return most
    return min(range(most, max(min(2, most), most // 2) - 1, -1), key=lambda size: count % size)


def held_out_share(count: int) -> float:
    """Return the share of `count` training images to hold out: a smaller one of larger sets."""
    return min(MOST_HELD_OUT, MOST_IMAGES / count, max(HELD_OUT, LEAST_IMAGES / count))


def held_out_mask(split: Split, groups: Tensor, share: float, seed: int) -> Tensor:
    """Return a mask, bool (N,), of the images to hold out: about `share` of each class, but never all of one.

    A share of 2 % holds out 1,200 +- 34 images of MNIST. Near-duplicates share the place of their group.
    """
    mask = hashed_places(split.images, f"{seed}/held out")[groups] < share
    return mask & torch.isin(split.labels, split.labels[~mask])


class Samples(NamedTuple):
    """A set of samples.

    images: uint8 (N, C, H, W).
    labels: the classes that a class-conditional model was asked for, int64 (N,); None for another model.
    x_t, pred_x_start: the frames kept at the timesteps `kept_t`, uint8 (frames, N, C, H, W).
    classes: the labels of the sampled classes.
    made: how they were made, for captions.
    clear: the share of clear samples by the name of their class, before they were filtered; None if they are not.
    """

    images: Tensor
    labels: Tensor | None
    x_t: Tensor
    pred_x_start: Tensor
    card: DataCard
    classes: list[int]
    kept_t: list[int]
    made: dict[str, Any]
    clear: dict[str, float] | None = None


def save_samples(path: Path, samples: Samples) -> None:
    """Write a set of samples."""
    arrays = {"images": samples.images, "x_t": samples.x_t, "pred_x_start": samples.pred_x_start}
    facts = {name: getattr(samples, name) for name in ("classes", "kept_t", "made")}
    save_arrays(
        path,
        arrays | ({} if samples.labels is None else {"labels": samples.labels}),
        {"data": samples.card.model_dump(mode="json"), **facts}
        | ({} if samples.clear is None else {"clear": samples.clear}),
    )


def load_samples(path: Path) -> Samples:
    """Read a set of samples that `save_samples` wrote.

    Raises:
        UserError: the file is missing, damaged, or not a set of samples.
    """
    arrays, metadata = load_arrays(path, {"images", "x_t", "pred_x_start"}, {"labels"})
    card = data_card(path, metadata)
    classes, kept_t, made, clear = (metadata.get(name) for name in ("classes", "kept_t", "made", "clear"))
    if not (
        (_are_indices(classes, len(card.classes)) and classes)
        and (_are_indices(kept_t, 2**62) and _are_samples(arrays, card, len(kept_t)))
        and isinstance(made, dict)
        and (clear is None or _are_shares(clear, card.classes))
    ):
        raise UserError(f"{path}: not a valid set of samples; `dvc repro` makes it again")
    labels = arrays.pop("labels", None)
    return Samples(labels=labels, card=card, classes=classes, kept_t=kept_t, made=made, clear=clear, **arrays)


def _fits(size: int, device: torch.device) -> bool:
    """Return whether `size` bytes take at most half of a GPU's free memory; on other devices always."""
    return device.type != "cuda" or 2 * size <= torch.cuda.mem_get_info(device)[0]


def _are_samples(arrays: dict[str, Tensor], card: DataCard, frames: int) -> bool:
    count = arrays["images"].shape[0] if arrays["images"].dim() else 0
    shapes = {"images": (count, *card.shape)} | dict.fromkeys(("x_t", "pred_x_start"), (frames, count, *card.shape))
    pixels = all(arrays[name].dtype == torch.uint8 and arrays[name].shape == shape for name, shape in shapes.items())
    labels = arrays.get("labels", torch.zeros(count, dtype=torch.int64))
    return pixels and labels.dtype == torch.int64 and labels.shape == (count,) and _within(labels, len(card.classes))


def _are_indices(values: object, end: int) -> TypeGuard[list[int]]:
    """Return whether `values` is a list of integers from 0 to below `end`."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < end for value in values)


def _are_shares(values: object, names: Sequence[str]) -> TypeGuard[dict[str, float]]:
    """Return whether `values` has numbers from 0 to 1 by these names or some of them."""
    return isinstance(values, dict) and all(
        name in names and type(share) is float and 0 <= share <= 1 for name, share in values.items()
    )


def _within(values: Tensor, end: int) -> bool:
    return bool(((values >= 0) & (values < end)).all())
