"""The raw files of MNIST, read strictly, and a folder of them as one of labelled pictures."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from ddpm.images.fetching import CHECKSUMS, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from ddpm.images.mnist import FASHION, read_idx
from ddpm.images.mnist import read_mnist as read
from exact_stages.console import UserError

PIXELS = bytes(index % 251 for index in range(3 * 28 * 28))


def idx(*shape: int, values: bytes = b"", dtype: int = 8) -> bytes:
    return bytes([0, 0, dtype, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images and two test images."""
    for prefix, labels in (("train", b"\3\0\3"), ("t10k", b"\x09\1")):
        count = len(labels)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(count, 28, 28, values=PIXELS[: count * 784]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(count, values=labels))
    return tmp_path


def test_a_folder_of_the_four_files_is_one_of_labelled_pictures(folder: Path) -> None:
    found = read(folder)
    assert found.classes == tuple("0123456789")
    assert [picture.label for picture in found.pictures] == [3, 0, 3, 9, 1]
    assert (len(found.pictures), found.tested) == (5, 2)
    levels = np.stack([np.asarray(picture.source) for picture in found.pictures])
    assert (levels.dtype, levels.shape) == (np.uint8, (5, 28, 28))
    assert levels.tobytes() == PIXELS + PIXELS[: 2 * 784]


def test_the_labels_tell_fashion_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256((folder / TRAIN_LABELS).read_bytes()).hexdigest()
    monkeypatch.setitem(CHECKSUMS["fashion_mnist"], TRAIN_LABELS, digest)
    assert read(folder).classes == FASHION


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x1f\x8b\x08\0" + bytes(20), id="still gzipped"),
        pytest.param(idx(1, 28, 28, values=bytes(784), dtype=9), id="signed bytes"),
        pytest.param(idx(2, 28, 28, values=bytes(1567)), id="a byte less"),
        pytest.param(idx(0, 28, 28), id="no images"),
    ],
)
def test_a_damaged_file_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UserError, match=f"^{tmp_path}/file: damaged, .*$"):
        read_idx(tmp_path / "file", 3)


@pytest.mark.parametrize(
    ("name", "data"),
    [(TRAIN_IMAGES, None), (TEST_LABELS, idx(3, values=b"\1\2\3")), (TEST_LABELS, idx(2, values=b"\1\x0a"))],
    ids=["a missing file", "a label more", "a label of no class"],
)
def test_files_that_do_not_belong_together_are_refused(name: str, data: bytes | None, folder: Path) -> None:
    (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"^{folder}/{name}: [^\n]*$"):
        read(folder)
