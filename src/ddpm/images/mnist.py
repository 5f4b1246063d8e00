"""Read MNIST and Fashion-MNIST from their four raw files."""

from pathlib import Path

import numpy as np

from ddpm.images.decoding import Levels
from ddpm.images.fetching import CHECKSUMS, FILES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from ddpm.images.folders import Folder, Mapped
from exact_stages.console import UserError
from exact_stages.files import sha256

# Names that are valid folders; torchvision's first one is not.
FASHION = "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"


def read_mnist(folder: Path) -> Folder:
    """Read the four files; the classes are digits unless the labels are those of Fashion-MNIST.

    Raises:
        UserError: a file is missing, damaged, or does not match the others.
    """
    train, test = (
        _read_pair(folder / images, folder / labels)
        for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS))
    )
    of_fashion = sha256(folder / TRAIN_LABELS) == CHECKSUMS["fashion_mnist"][TRAIN_LABELS]
    classes = FASHION if of_fashion else tuple("0123456789")
    return Folder(classes, Mapped(train, test), len(test[1]), [], [folder / each for each in FILES])


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


def _read_pair(images: Path, labels: Path) -> tuple[Levels, Levels]:
    levels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(levels) != len(classes) or classes.max() > 9:
        raise UserError(f"{labels}: must have a label from 0 to 9 for each image in {images.name}; fetch both again")
    return levels, classes
