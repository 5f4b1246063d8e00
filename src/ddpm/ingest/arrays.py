"""Read the images and labels of an npz file: `images` and `labels`, or the arrays of MedMNIST."""

import shutil
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from ddpm.ingest.decoding import Values
from ddpm.ingest.folders import Folder, Mapped, class_faults
from exact_stages.console import UserError, shown

IMAGES = "uint8 or uint16, (N, H, W) or (N, H, W, 3); no volumes, floats or pickles"
LABELS = "one integer for each image, (N,) or (N, 1), from 0 to below the number of `classes` if these are named"


def read_arrays(path: Path, least: int = 2) -> Folder:
    """Read an npz file; without labels, all images are of one class, named like the file.

    The arrays are unpacked to unnamed files and mapped, so that memory holds only what is in use. For `least` see
    `read_folder`.

    Raises:
        UserError: the file is damaged, or has no such arrays.
    """
    try:
        with ZipFile(path) as archive:
            known = {name.removesuffix(".npy") for name in archive.namelist()}
            parted = "train_images" in known
            prefixes = [each for each in ("train_", "val_", "test_") if f"{each}images" in known] if parted else [""]
            key = "images" if parted or "images" in known else "arr_0"
            parts = [_mapped(archive, each + key) for each in prefixes]
            labelled = parted or "labels" in known
            labels = [
                _mapped(archive, f"{each}labels") if labelled else np.zeros(len(parts[0]), int) for each in prefixes
            ]
            names = [*map(str, _mapped(archive, "classes"))] if "classes" in known else None
    except (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not an npz file with `images` and `labels`: {shown(str(error))}") from None
    for part, each in zip(parts, labels, strict=True):
        usual = part.dtype in (np.uint8, np.uint16) and part.ndim in (3, 4) and part.shape[3:] in ((), (1,), (3,))
        alike = each.dtype.kind in "iu" and each.shape in ((len(part),), (len(part), 1))
        if not (part.size and usual and alike):
            has = f"{part.dtype} {part.shape} and {each.dtype} {each.shape}"
            raise UserError(f"{path}: images must be {IMAGES}; labels must be {LABELS}; it has {has}")
    numbers, found = np.unique(np.concatenate([each.reshape(-1) for each in labels]), return_inverse=True)
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
        raise UserError("\n  ".join([f"{path}: unfit classes", *faults]))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    squeezed = [part[..., 0] if part.shape[3:] == (1,) else part for part in parts]
    return Folder(tuple(names), Mapped(*zip(squeezed, np.split(found, ends), strict=True)), tested, [], [])


def _mapped(archive: ZipFile, name: str) -> Values:
    with tempfile.NamedTemporaryFile() as file, archive.open(f"{name}.npy") as packed:
        shutil.copyfileobj(packed, file)
        file.flush()
        return np.load(file.name, mmap_mode="r", allow_pickle=False).view(np.ndarray)
