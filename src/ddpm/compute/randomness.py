"""Stateless, explicit randomness: each purpose has generators of its own, found again from (seed, purpose, index).

Nothing depends on how many numbers were drawn before, so a draw is the same after a resumption, in another batch
size, or alone.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Generator, Tensor

CPU = torch.device("cpu")


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

    def __call__(self) -> Tensor:
        """The next noise of every image, shape (images, *shape), float32, on the device."""
        noise = torch.empty(len(self.generators), *self.shape)
        for row, generator_of_image in zip(noise, self.generators, strict=True):
            row.normal_(generator=generator_of_image)
        return noise.to(self.device)
