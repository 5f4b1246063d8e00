import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm.ingest.datasets import CHECKSUMS, CLASSES, SIZES
from ddpm.ingest.folders import check_class_name
from ddpm.ingest.idx import decode_idx, decode_pair, is_idx_folder, read_idx_folder
from ddpm.pipeline.console import UserError


def idx(*shape: int, values: bytes = b"", dtype: int = 0x08, magic: bytes = b"\0\0") -> bytes:
    return magic + bytes([dtype, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


def image_bytes(count: int) -> bytes:
    """Pixel i of all, in reading order, is i modulo 251."""
    return bytes(i % 251 for i in range(count * 784))


def test_labels_are_decoded_in_order() -> None:
    decoded = decode_idx(idx(4, values=bytes([7, 0, 9, 255])), "labels")
    assert decoded.dtype is torch.uint8
    assert decoded.tolist() == [7, 0, 9, 255]


def test_images_are_decoded_row_by_row() -> None:
    decoded = decode_idx(idx(2, 2, 3, values=bytes(range(12))), "images")
    assert decoded.dtype is torch.uint8
    assert decoded.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]


def test_sizes_are_big_endian() -> None:
    assert decode_idx(b"\0\0\x08\x01" + b"\0\0\x01\x02" + bytes(258), "labels").shape == (258,)


def test_the_decoded_tensor_owns_its_memory() -> None:
    data = idx(2, values=b"\1\2")
    decode_idx(data, "labels").fill_(0)
    assert data == idx(2, values=b"\1\2")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not an IDX file", id="empty"),
        pytest.param(b"\0\0\x08", "not an IDX file", id="three bytes"),
        pytest.param(idx(1, values=b"\1", magic=b"\0\1"), "not an IDX file", id="wrong magic"),
        pytest.param(b"\x1f\x8b\x08\0" + bytes(20), "not an IDX file", id="still gzipped"),
        pytest.param(b"<html>404</html>", "not an IDX file", id="a web page"),
        pytest.param(idx(1, values=b"\1", dtype=0x09), "IDX dtype 0x09 where 0x08, unsigned bytes", id="signed bytes"),
        pytest.param(idx(1, values=bytes(4), dtype=0x0D), "IDX dtype 0x0d where 0x08", id="floats"),
        pytest.param(idx(), "0 dimensions; labels have 1 and images 3", id="no dimensions"),
        pytest.param(idx(2, 2, values=bytes(4)), "2 dimensions; labels have 1 and images 3", id="two dimensions"),
        pytest.param(idx(1, 1, 1, 1, values=bytes(1)), "4 dimensions; labels", id="four dimensions"),
        pytest.param(b"\0\0\x08\x01", "cut short inside its header", id="no sizes"),
        pytest.param(idx(1, 28, 28)[:-1], "cut short inside its header", id="last size cut"),
        pytest.param(idx(5, values=bytes(4)), "the header promises 5 values, the file has 4", id="too few"),
        pytest.param(idx(5, values=bytes(6)), "the header promises 5 values, the file has 6", id="trailing"),
        pytest.param(idx(1, values=b""), "the header promises 1 values, the file has 0", id="header alone"),
        pytest.param(
            idx(2000, 28, 28, values=bytes(784)), "promises 1,568,000 values, the file has 784", id="images cut"
        ),
        pytest.param(  # 1.7 TB: it would not survive an allocation
            idx(2**31, 28, 28, values=bytes(784)), "promises 1,683,627,180,032 values", id="2^31 images"
        ),
        pytest.param(idx(*[2**32 - 1] * 3), f"promises {(2**32 - 1) ** 3:,} values", id="product above 2^64"),
    ],
)
def test_a_damaged_file_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        decode_idx(data, "train images")
    assert str(caught.value).startswith("train images: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_is_decoded_exactly() -> None:
    images, labels = decode_pair(idx(2, 28, 28, values=image_bytes(2)), idx(2, values=b"\x09\0"), "test")
    assert images.shape == (2, 28, 28)
    assert images.flatten().tolist() == list(image_bytes(2))
    assert labels.tolist() == [9, 0]
    assert images.dtype is labels.dtype is torch.uint8


ONE_IMAGE = idx(1, 28, 28, values=image_bytes(1))
ONE_LABEL = idx(1, values=b"\3")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        pytest.param(b"", ONE_LABEL, "test images: not an IDX file", id="images damaged"),
        pytest.param(ONE_IMAGE, b"", "test labels: not an IDX file", id="labels damaged"),
        pytest.param(ONE_LABEL, ONE_LABEL, r"test images: shape (1,) where (N, 28, 28)", id="labels as images"),
        pytest.param(ONE_IMAGE, ONE_IMAGE, "test labels: shape (1, 28, 28) beside 1 images", id="images as labels"),
        pytest.param(
            idx(1, 28, 27, values=bytes(756)), ONE_LABEL, "test images: shape (1, 28, 27) where", id="wrong width"
        ),
        pytest.param(
            idx(1, 32, 32, values=bytes(1024)), ONE_LABEL, "test images: shape (1, 32, 32) where", id="wrong size"
        ),
        pytest.param(ONE_IMAGE, idx(2, values=b"\1\2"), "test labels: shape (2,) beside 1 images", id="one label more"),
        pytest.param(
            idx(2, 28, 28, values=bytes(1568)), ONE_LABEL, "test labels: shape (1,) beside 2 images", id="one less"
        ),
        pytest.param(ONE_IMAGE, idx(1, values=b"\x0a"), "test labels: the label 10 where 0..9", id="label 10"),
        pytest.param(ONE_IMAGE, idx(1, values=b"\xff"), "test labels: the label 255 where 0..9", id="label 255"),
    ],
)
def test_a_wrong_pair_is_refused_by_name(images: bytes, labels: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        decode_pair(images, labels, "test")
    assert message in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 28, 28), (5, 0, 28)])
def test_a_file_without_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="test images: "):
        decode_pair(idx(*shape), idx(shape[0], values=bytes(shape[0])), "test")


# --- a folder of them ------------------------------------------------------------------------------------------------

NAMES = [*SIZES]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images and two test images."""
    for prefix, values in (("train", b"\3\0\3"), ("t10k", b"\x09\1")):
        count = len(values)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(count, 28, 28, values=image_bytes(count)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(count, values=values))
    return tmp_path


def test_a_folder_of_the_four_files_is_one_of_labelled_pictures(folder: Path) -> None:
    found = read_idx_folder(folder)
    assert found.classes == tuple("0123456789")
    assert found.ignored == []
    assert found.test is not None
    for split, labels in ((found.train, [3, 0, 3]), (found.test, [9, 1])):
        levels = np.stack([np.asarray(picture.source) for picture in split])
        assert levels.dtype == np.uint8
        assert levels.shape == (len(labels), 28, 28)
        assert levels.tobytes() == image_bytes(len(labels))
        assert [picture.label for picture in split] == labels


def test_the_labels_say_which_set_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256((folder / NAMES[1]).read_bytes()).hexdigest()
    monkeypatch.setitem(CHECKSUMS["fashion_mnist"], NAMES[1], digest)
    assert read_idx_folder(folder).classes == CLASSES["fashion_mnist"]
    assert CLASSES["fashion_mnist"][9] == "Ankle boot"


def test_any_of_the_files_makes_it_such_a_folder(folder: Path) -> None:
    assert is_idx_folder(folder)
    for name in NAMES[:3]:
        (folder / name).unlink()
        assert is_idx_folder(folder)
    (folder / NAMES[3]).rename(folder / "other")
    assert not is_idx_folder(folder)
    (folder / NAMES[0]).mkdir()
    assert not is_idx_folder(folder)
    assert not is_idx_folder(folder / "missing")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError) as caught:
        read_idx_folder(folder)
    assert str(caught.value) == f"{folder / name}: No such file or directory; the four files belong together"


def test_a_damaged_file_is_named(folder: Path) -> None:
    (folder / NAMES[2]).write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"^t10k images: not an IDX file"):
        read_idx_folder(folder)


@pytest.mark.parametrize("dataset", CLASSES)
def test_known_classes_can_be_folders(dataset: str) -> None:
    assert len(set(CLASSES[dataset])) == 10
    assert [check_class_name(name) for name in CLASSES[dataset]] == [""] * 10
