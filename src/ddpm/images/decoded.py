"""Decode all images of a set in parallel, and keep them on disk."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from ddpm.images.decoding import LARGEST, Levels, Target, decode
from ddpm.images.folders import Picture
from ddpm.images.near_duplicates import MOST_SEARCHED, thumbnails
from ddpm.images.splits import hashed_places
from exact_stages.console import UserError, progress, shown

BLOCK = 1 << 24  # bytes of images in memory at once
MOST_THREADS = 16
TOGETHER = 16  # images handed to a thread at once

T = TypeVar("T")


class Images:
    """All N images of a set, in one size and colour, in a file; at most BLOCK bytes are in memory.

    labels: (N,).
    places: hashes of the source files that choose the test images, (N,).
    ranks: hashes of the source files that choose which near-duplicate decides for its group, (N,).
    keys: hashes of the levels, (N,), see `splits.hashed_places`.
    thumbnails: see `near_duplicates.thumbnails`; None of more than MOST_SEARCHED images.
    """

    def __init__(self, scratch: IO[bytes], pictures: Sequence[Picture], target: Target) -> None:
        """Decode all images.

        Args:
            scratch: an empty file, open for writing and reading.
        """
        self.shape = target.shape
        self.labels = torch.tensor([picture.label for picture in pictures])
        self._scratch = scratch
        self._each = int(np.prod(target.shape))
        self._rows = max(1, BLOCK // self._each)

        def one(index: int) -> tuple[Levels, float, float]:
            try:
                return decode(pictures[index].source, target), *_place_and_rank(pictures[index])
            except (ValueError, OSError) as error:
                raise UserError(f"{named(pictures, index)}: {error}; it has changed, run this again") from None

        hashes: list[Tensor] = []
        keys, small = [], []
        searched = len(pictures) <= MOST_SEARCHED
        for part in in_parallel(one, len(pictures), self._rows, "preprocess"):
            images = torch.from_numpy(np.stack([levels for levels, *_ in part]))
            scratch.write(images.numpy().data)
            hashes.append(torch.tensor([each[1:] for each in part], dtype=torch.float64))
            keys.append(hashed_places(images, "levels"))
            small += [thumbnails(images)] if searched else []
        self.places, self.ranks = torch.cat(hashes).unbind(1)
        self.keys, self.thumbnails = torch.cat(keys), torch.cat(small) if searched else None

    def take(self, chosen: Tensor) -> Iterator[Tensor]:
        """Yield the images that a mask (N,) selects, in parts, uint8 (n, C, H, W)."""
        for first, mask in zip(range(0, len(chosen), self._rows), chosen.split(self._rows), strict=True):
            self._scratch.seek(first * self._each)
            levels = bytearray(self._scratch.read(len(mask) * self._each))
            yield torch.frombuffer(levels, dtype=torch.uint8).view(-1, *self.shape)[mask]


def in_parallel(function: Callable[[int], T], count: int, rows: int, what: str) -> Iterator[list[T]]:
    """Yield the results of a function of 0..count-1, `rows` at a time; threads suffice, as Pillow releases the GIL."""

    def some(indices: range) -> list[T]:
        return [function(index) for index in indices]

    room = psutil.virtual_memory().available // LARGEST  # each thread may hold a large image
    threads = max(1, min(MOST_THREADS, os.cpu_count() or 1, room))
    with ThreadPoolExecutor(threads) as pool, progress(desc=what, total=count, unit="img") as bar:
        for first in range(0, count, rows):
            block = range(first, min(first + rows, count))
            parts = pool.map(some, [block[start : start + TOGETHER] for start in range(0, len(block), TOGETHER)])
            part = [each for found in parts for each in found]
            bar.update(len(part))
            yield part


def named(pictures: Sequence[Picture], index: int) -> str:
    """Return the name of an image for a message."""
    source = pictures[index].source
    return shown(str(source)) if isinstance(source, Path) else f"image {index}"


def _place_and_rank(picture: Picture) -> tuple[float, float]:
    """Return two hashes in [0, 1) of an image's file, or of its levels if it has none."""
    data = picture.source.read_bytes() if isinstance(picture.source, Path) else picture.source.tobytes()
    digests = (hashlib.blake2b(data, digest_size=8, key=key).digest() for key in (b"place", b"rank"))
    place, rank = (int.from_bytes(digest, "big") / 2**64 for digest in digests)
    return place, rank
