"""MNIST and Fashion-MNIST as a folder of labelled pictures."""

import hashlib
from pathlib import Path

import numpy as np

from ddpm.ingest.decoding import Levels
from ddpm.ingest.fetching import CHECKSUMS, FILES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from ddpm.ingest.folders import Folder, Picture
from ddpm.pipeline.console import UserError

CLASSES = {  # names that can be folders
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}


def is_mnist(folder: Path) -> bool:
    """Whether a folder holds any of the four files."""
    return any((folder / name).is_file() for name in FILES)


def read_mnist(folder: Path) -> Folder:
    """Read the four files as grey levels (H, W) with labels; unless they are Fashion-MNIST, the classes are digits.

    Raises:
        UserError: a file is missing or damaged, or does not belong to the others.
    """
    train, test = (
        _read_pair(folder / images, folder / labels)
        for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS))
    )
    digest = hashlib.sha256((folder / TRAIN_LABELS).read_bytes()).hexdigest()
    name = "fashion_mnist" if digest == CHECKSUMS["fashion_mnist"][TRAIN_LABELS] else "mnist"
    return Folder(CLASSES[name], train, test, [])


def read_idx(path: Path, dimensions: int) -> Levels:
    """Map an IDX file of unsigned bytes into memory.

    The format: two zero bytes, 8 for unsigned bytes, how many dimensions, each size as a big-endian uint32, the values.

    Raises:
        UserError: the file is missing, damaged, or of another type or number of dimensions.
    """
    start = 4 + 4 * dimensions
    try:
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)  # of which a view takes a third of the memory
        sizes = data[4:start].view(">u4").tolist()
        if data[:4].tolist() == [0, 0, 8, dimensions] and all(sizes):
            return data[start:].reshape(sizes)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; the four files belong together") from None
    except ValueError:
        pass
    raise UserError(f"{path}: damaged, or no IDX file of unsigned bytes in {dimensions} dimensions")


def _read_pair(images: Path, labels: Path) -> list[Picture]:
    levels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(levels) != len(classes) or classes.max() > 9:
        raise UserError(f"{labels}: its labels are not one of 0..9 for each image in {images.name}")
    return [*map(Picture, levels, classes.tolist())]
