"""Read the images and labels of an npz file: `images` and `labels`, or the arrays of MedMNIST."""

from collections import Counter
from pathlib import Path

import numpy as np

from ddpm.images.folders import Folder, Mapped, class_faults, faulty
from exact_stages.console import UserError, shown

IMAGES = "uint8 or uint16, (N, H, W) or (N, H, W, 3); no volumes, floats or pickles"
LABELS = "one integer for each image, (N,) or (N, 1), from 0 to below the number of `classes` if these are named"


def read_arrays(path: Path, least: int = 2) -> Folder:
    """Read an npz file; without labels, all images are of one class, named like the file.

    For `least` see `read_folder`.

    Raises:
        UserError: the file is damaged, or has no such arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            parted = "train_images" in archive
            prefixes = [each for each in ("train_", "val_", "test_") if f"{each}images" in archive] if parted else [""]
            key = "images" if parted or "images" in archive else "arr_0"
            parts = [archive[each + key] for each in prefixes]
            images = np.concatenate(parts) if parts[1:] else parts[0]
            labels = np.zeros(len(images), int)
            if labelled := parted or "labels" in archive:
                labels = np.concatenate([archive[f"{each}labels"] for each in prefixes])
            names = [*map(str, archive["classes"])] if "classes" in archive else None
    except MemoryError:
        raise UserError(f"{path}: larger than the memory; make a folder of its images, or take a part") from None
    except Exception as error:  # numpy and zipfile raise many types for damaged files
        raise UserError(f"{path}: not an npz file with `images` and `labels`: {shown(str(error))}") from None
    usual = images.dtype in (np.uint8, np.uint16) and images.ndim in (3, 4) and images.shape[3:] in ((), (1,), (3,))
    alike = labels.dtype.kind in "iu" and labels.shape in ((len(images),), (len(images), 1))
    if not (images.size and usual and alike):
        has = f"{images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
        raise UserError(f"{path}: images must be {IMAGES}; labels must be {LABELS}; it has {has}")
    numbers, found = np.unique(labels.reshape(-1), return_inverse=True)
    if names is None:
        names = [*map(str, numbers)] if labelled else [path.stem]
    elif numbers[0] < 0 or numbers[-1] >= len(names) or len({*names}) < len(names):
        raise UserError(f"{path}: labels must be {LABELS}, each named once; it has {numbers[0]} to {numbers[-1]}")
    else:
        names = [names[number] for number in numbers]
    tested = len(parts[-1]) if prefixes[-1] == "test_" else 0
    split = np.split(found, [len(found) - tested])
    train, test = (Counter(names[number] for number in part.tolist()) for part in split)
    if faults := class_faults(train, test, least):
        raise faulty(f"{path}: unfit classes", faults)
    levels = images[..., 0] if images.shape[3:] == (1,) else images
    return Folder(tuple(names), Mapped((levels, found)), tested, [], [])
