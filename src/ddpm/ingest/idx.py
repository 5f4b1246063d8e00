"""MNIST's four files: the IDX format, decoded strictly, and a folder of them as one of labelled pictures."""

import hashlib
import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from ddpm.ingest.datasets import CHECKSUMS, CLASSES, SIZES
from ddpm.ingest.folders import Folder, Picture
from ddpm.pipeline.console import UserError

UNSIGNED_BYTE = 0x08
PREFIXES = ("train", "t10k")


def is_idx_folder(folder: Path) -> bool:
    """Whether it holds any of MNIST's files."""
    return any((folder / name).is_file() for name in SIZES)


def read_idx_folder(folder: Path) -> Folder:
    """The pictures in MNIST's four files, grey levels (28, 28) each; their classes are digits if they are not known.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        files = {name: (folder / name).read_bytes() for name in SIZES}
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; the four files belong together") from None
    splits = []
    for prefix in PREFIXES:
        images, labels = decode_pair(files[f"{prefix}-images-idx3-ubyte"], files[f"{prefix}-labels-idx1-ubyte"], prefix)
        splits.append([*map(Picture, images.numpy(), labels.tolist())])
    labels_file = "train-labels-idx1-ubyte"
    digest = hashlib.sha256(files[labels_file]).hexdigest()
    known = next((name for name, sums in CHECKSUMS.items() if sums[labels_file] == digest), "mnist")
    return Folder(CLASSES[known], splits[0], splits[1], [])


def decode_idx(data: bytes, name: str) -> Tensor:
    """Decode an IDX file of unsigned bytes, strictly; the shape is the header's, the dtype uint8.

    The format: two zero bytes, the dtype (8 is the unsigned byte), the number of dimensions, each size as a big-endian
    uint32, then the values.

    Raises:
        UserError: anything else; the message begins with `name`.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise UserError(f"{name}: not an IDX file: it does not begin with two zero bytes, dtype and dimensions")
    dtype, dimensions = data[2], data[3]
    if dtype != UNSIGNED_BYTE:
        raise UserError(f"{name}: IDX dtype 0x{dtype:02x} where 0x08, unsigned bytes, belongs")
    if dimensions not in (1, 3):
        raise UserError(f"{name}: {dimensions} dimensions; labels have 1 and images 3")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise UserError(f"{name}: cut short inside its header")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise UserError(f"{name}: the header promises {math.prod(shape):,} values, the file has {len(data) - start:,}")
    if not math.prod(shape):
        raise UserError(f"{name}: the header promises no values, shape {shape}")
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).view(shape)


def decode_pair(images: bytes, labels: bytes, name: str) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) and labels (N,) of one split, both uint8, checked against each other.

    Raises:
        UserError: a file is damaged, sizes differ, or a label is not one of 0..9.
    """
    pixels, classes = decode_idx(images, f"{name} images"), decode_idx(labels, f"{name} labels")
    if pixels.dim() != 3 or pixels.shape[1:] != (28, 28):
        raise UserError(f"{name} images: shape {tuple(pixels.shape)} where (N, 28, 28) belongs")
    if classes.shape != pixels.shape[:1]:
        raise UserError(f"{name} labels: shape {tuple(classes.shape)} beside {len(pixels)} images")
    if classes.max() > 9:
        raise UserError(f"{name} labels: the label {int(classes.max())} where 0..9 belong")
    return pixels, classes
