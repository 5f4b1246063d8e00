"""Stateless, explicit randomness: each purpose has generators of its own, found again from (seed, purpose, index).

Nothing depends on how many numbers were drawn before, so a draw is the same after a resumption, in another batch
size, or alone.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Generator, Tensor

CPU = torch.device("cpu")
THREADS, CALLS_AHEAD = 8, 10


def generator(seed: int, purpose: str, index: int = 0, device: torch.device = CPU) -> Generator:
    """A fresh generator on `device`, seeded by a hash of its three names."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


class ImageNoise:
    """Gaussian noise for the images of one batch, each image from a generator of its own.

    The generators live on the CPU, so that the noise of image i is the same on every device and in every batch.
    """

    def __init__(self, seed: int, indices: Iterable[int], shape: tuple[int, ...], device: torch.device = CPU) -> None:
        self.generators = [generator(seed, "image", index) for index in indices]
        self.shape = shape
        self.device = device
        self._ahead = Ahead(self.generators, shape, device) if device.type == "cuda" else None

    def __call__(self) -> Tensor:
        """The next noise of every image, shape (images, *shape), float32, on the device."""
        if self._ahead:
            return next(self._ahead)
        noise = torch.empty(len(self.generators), *self.shape)
        _fill(noise, self.generators)
        return noise.to(self.device)


class Ahead:
    """The same noise for a GPU: threads draw it, some calls ahead, in memory from which it goes there by itself."""

    def __init__(self, generators: Sequence[Generator], shape: tuple[int, ...], device: torch.device) -> None:
        self.generators = generators
        self.device = device
        # A draw of several calls' numbers gives those of several draws if torch makes them in whole groups of 16.
        self.shape = (CALLS_AHEAD if math.prod(shape) % 16 == 0 else 1, *shape)
        self.threads = ThreadPoolExecutor(THREADS)
        self.next = self._begin()
        self.there: Iterator[Tensor] = iter(())

    def __next__(self) -> Tensor:
        if (noise := next(self.there, None)) is None:
            drawn, parts = self.next
            for part in parts:
                part.result()
            self.next = self._begin()
            self.there = iter(drawn.to(self.device, non_blocking=True).unbind(1))
            noise = next(self.there)
        return noise

    def _begin(self) -> tuple[Tensor, list[Future[None]]]:
        """Memory (images, calls, *shape), and the work of filling it, an equal share of the images a thread."""
        with torch.inference_mode(False):  # what is made in that mode only threads in that mode may fill
            drawn = torch.empty(len(self.generators), *self.shape, pin_memory=self.device.type == "cuda")
        size = -(-len(self.generators) // THREADS)
        shares = [self.generators[start : start + size] for start in range(0, len(self.generators), size)]
        parts = zip(drawn.split(size), shares, strict=True)
        return drawn, [self.threads.submit(_fill, noise, share) for noise, share in parts]


def _fill(noise: Tensor, generators: Sequence[Generator]) -> None:
    """Draw the noise of images (B, ...), each by its own generator."""
    for row, source in zip(noise, generators, strict=True):
        row.normal_(generator=source)
