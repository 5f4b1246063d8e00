"""Read MNIST and Fashion-MNIST from their four raw files; list checksums and classes.

MNIST: LeCun, Cortes, Burges. Fashion-MNIST: Xiao, Rasul, Vollgraf 2017 (arXiv:1708.07747).
"""

import hashlib
from pathlib import Path

import numpy as np

from ddpm.ingest.decoding import Levels
from ddpm.ingest.folders import Folder, Picture
from ddpm.pipeline.console import UserError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
CHECKSUMS = {  # sha256 of the unpacked files
    "mnist": {
        TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
FILES = tuple(CHECKSUMS["mnist"])
CLASSES = {  # names that are valid folders
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
    """Return whether a folder has any of the four files."""
    return any((folder / name).is_file() for name in FILES)


def read_mnist(folder: Path) -> Folder:
    """Read the four files; the classes are digits unless the labels are those of Fashion-MNIST.

    Raises:
        UserError: a file is missing, damaged, or does not match the others.
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

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, their sizes (big-endian uint32), values.

    Raises:
        UserError: the file is missing, damaged, or has another type or number of dimensions.
    """
    start = 4 + 4 * dimensions
    try:
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)  # its views take a third of the memory
        sizes = data[4:start].view(">u4").tolist()
        if data[:4].tolist() == [0, 0, 8, dimensions] and all(sizes):
            return data[start:].reshape(sizes)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; all four files are needed") from None
    except ValueError:
        pass
    raise UserError(f"{path}: damaged, or not an IDX file of bytes in {dimensions} dimensions; fetch it again")


def _read_pair(images: Path, labels: Path) -> list[Picture]:
    levels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(levels) != len(classes) or classes.max() > 9:
        raise UserError(f"{labels}: must have a label from 0 to 9 for each image in {images.name}; fetch both again")
    return [*map(Picture, levels, classes.tolist())]
