"""Make random generators without global state: each is seeded by (seed, purpose, index).

Random numbers do not depend on how many were generated before. They are the same after resuming, in another batch size,
or for a single image.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Generator, Tensor

CPU = torch.device("cpu")


def generator(seed: int, purpose: str, index: int = 0, device: torch.device = CPU) -> Generator:
    """Return a new generator on `device`, seeded by a hash of seed, purpose and index."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


class ImageNoise:
    """Gaussian noise for a batch of images, with one generator for each image.

    The generators run on the CPU, so the noise of image i is the same on every device and in every batch.
    """

    def __init__(self, seed: int, indices: Iterable[int], shape: tuple[int, ...], device: torch.device = CPU) -> None:
        self.generators = [generator(seed, "image", index) for index in indices]
        self.shape = shape
        self.device = device

    def __call__(self) -> Tensor:
        """Return the next noise, (images, *shape), float32, on the device."""
        noise = torch.empty(len(self.generators), *self.shape)
        for row, generator_of_image in zip(noise, self.generators, strict=True):
            row.normal_(generator=generator_of_image)
        return noise.to(self.device)
