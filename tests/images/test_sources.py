"""Sets of images in the forms that people have: TIFF, more than 8 bits, npz files, and tables of labels."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm.images.decoding import COLOUR_16, EIGHT, OTHER, SIXTEEN, Target, decode, look
from ddpm.images.preparation import Source, list_images, looks_of, notes_of, range_of, read_source
from exact_stages.console import UserError
from tests.stages.written import data_params

WHITE = (255, 255, 255)
TWELVE = np.array([[0, 8, 9], [2048, 4072, 4080]], np.uint16)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(name: str, values: np.ndarray) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def draw(name: str, values: np.ndarray) -> None:
    """A picture that has the values again and again."""
    save(name, np.tile(values, (8, 8)))


def levels_of(source: Source, height: int, width: int, index: int = 0) -> list[Any]:
    return decode(source.folder.pictures[index].source, source.target)[0, :height, :width].tolist()


def read(limits: tuple[float, float] | None = None) -> Source:
    return read_source(Path("mine"), **data_params(range=limits).wanted)


@pytest.mark.parametrize(
    ("values", "depth"),
    [
        (np.array([[0, 7, 255]], np.uint8), EIGHT),
        (np.array([[[0, 7, 255], [1, 2, 3]]], np.uint8), EIGHT),
        (np.array([[0, 7, 65535]], np.uint16), SIXTEEN),
        (np.array([[-1.5, 7, 1e6]], np.float32), OTHER),
        (np.array([[-1000, 7, 3000]], np.int32), OTHER),
    ],
)
def test_tiff_of_any_depth_comes_through(values: np.ndarray, depth: str) -> None:
    path = save("a.tif", values)
    found, extent = look(path, WHITE)
    assert (found.height, found.width, found.colour, found.depth) == (1, values.shape[1], values.ndim == 3, depth)
    limits = None if depth == EIGHT else (float(values.min()), float(values.max()))
    assert extent == (limits and (*limits, 0))
    shape = (values.shape[2] if values.ndim == 3 else 1, *values.shape[:2])
    got = decode(path, Target(shape, values.shape[:2], "crop", WHITE, limits))
    low, high = limits or (0, 255)
    expected = (values.astype(float) - low) / (high - low) * 255
    np.testing.assert_allclose(got, np.atleast_3d(expected).transpose(2, 0, 1), atol=0.5001)


def test_a_value_that_is_not_a_number_is_named() -> None:
    for number in range(3):
        save(f"mine/{number}.tif", np.full((3, 3), np.nan if number == 1 else 1, np.float32))
    with pytest.raises(UserError, match=r"^1 unreadable.*\n  mine/1\.tif: .+$"):
        read()


@pytest.mark.parametrize("form", ["tif", "png"])
def test_twelve_bits_have_one_range_for_the_whole_set(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        draw(f"mine/{number}.{form}", TWELVE // (number + 1))
    source = read()
    assert source.target.range == source.card.source_range == (0, 4095)
    assert levels_of(source, 2, 3) == [[0, 0, 1], [128, 254, 254]]  # 255/4095 of the values; 8 is 0.498
    assert levels_of(source, 2, 3, 1) == [[0, 0, 0], [64, 127, 127]]
    assert "0 to 4,095" in source.why["data.range"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("brightest", "top"), [(200, 1023), (1023, 1023), (1024, 4095), (4096, 16383), (16384, 65535), (65535, 65535)]
)
def test_the_range_of_sixteen_bits_follows_from_the_brightest_value(brightest: int, top: int) -> None:
    for number in range(2):
        draw(f"mine/{number}.png", TWELVE * 0 + number * brightest)
    assert read().target.range == (0, top)


def test_the_range_of_floats_is_their_own_and_a_given_one_clips_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        draw(f"mine/{number}.tif", np.array([[-1, 0, 1 + number]], np.float32))
    assert read().target.range == (-1, 2)
    given = read((0, 1))
    assert levels_of(given, 1, 3, 1) == [[0, 0, 255]]
    assert (given.card.source_range, "data.range" in given.why) == ((0, 1), False)
    assert f"{3 * 64} values are beyond" in capsys.readouterr().out


def test_eight_bits_are_never_scaled_and_mixed_depths_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        draw(f"mine/{number}.png", np.array([[0, 9, 90]], np.uint8))
    source = read((0, 90))
    assert (levels_of(source, 1, 3), source.card.source_range) == ([[0, 9, 90]], None)
    assert "source_range" not in source.card.model_dump()
    assert "depths: 2 of 8 bits;" in capsys.readouterr().out
    draw("mine/2.png", np.array([[0, 9, 900]], np.uint16))
    source = read()
    assert [levels_of(source, 1, 3, index) for index in (0, 2)] == [[[0, 9, 90]], [[0, 2, 224]]]
    assert "1 of 16 bits, 2 of 8 bits" in capsys.readouterr().out


def test_colour_of_sixteen_bits_has_its_upper_eight_scaled_by_the_range() -> None:
    pixels = np.array([[[4080, 0, 256], [2048, 2048, 2048]]], ">u2")
    head = struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)  # Pillow writes no such PNG
    parts = {b"IHDR": head, b"IDAT": zlib.compress(b"\0" + pixels.tobytes()), b"IEND": b""}
    chunks = [(len(data), kind + data, zlib.crc32(kind + data)) for kind, data in parts.items()]
    Path("mine").mkdir()
    for number in range(2):
        whole = [struct.pack(f">I{size + 4}sI", size, data, check) for size, data, check in chunks]
        Path(f"mine/{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    seen = looks_of(list_images(Path("mine")).pictures, WHITE)
    assert [(each.depth, each.colour) for each in seen.looks] == [(COLOUR_16, True)]
    got = decode(Path("mine/0.png"), Target((3, 1, 2), (1, 2), "crop", WHITE, range_of(seen)))
    np.testing.assert_allclose(got[:, 0].T, pixels[0] / 4095 * 255, atol=16)  # of 16 levels
    assert len(notes_of(seen, None)) == 1


def images(count: int, *shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape)).astype(dtype)


def test_an_npz_of_medmnist_has_train_val_and_test() -> None:
    parts = {"train": images(6, 8, 8, 3), "val": images(4, 8, 8, 3), "test": images(3, 8, 8, 3)}
    labels = {name: (np.arange(len(part)) % 2 * 3).astype(np.uint8)[:, None] for name, part in parts.items()}
    arrays = {f"{name}_images": part for name, part in parts.items()}
    np.savez_compressed("mine.npz", **arrays, **{f"{name}_labels": part for name, part in labels.items()})
    source = read_source(Path("mine.npz"), **data_params().wanted)
    assert (source.card.name, source.card.classes, source.folder.tested) == ("mine", ("0", "3"), 3)
    assert [each.label for each in source.folder.pictures] == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    whole = np.concatenate([*parts.values()])
    for picture, expected in zip(source.folder.pictures, whole, strict=True):
        np.testing.assert_array_equal(picture.source, expected)


def test_an_npz_of_images_has_the_names_of_its_classes_and_sixteen_bits() -> None:
    np.savez("mine.npz", images=images(6, 8, 8, 1, dtype=np.uint16) * 4, labels=[2, 1] * 3, classes=["no", "a", "b"])
    source = read_source(Path("mine.npz"), **data_params().wanted)
    assert (source.card.classes, source.target.range, source.folder.tested) == (("a", "b"), (0, 1023), 0)
    assert [each.label for each in source.folder.pictures] == [1, 0] * 3
    assert np.array(levels_of(source, 8, 8, 3)).tolist() == np.rint(images(6, 8, 8)[3] * 4.0 * 255 / 1023).tolist()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"images": images(6, 4, 4, 4)}, "images"),
        ({"images": images(6, 4, 4) / 2}, "images"),
        ({"labels": np.zeros(5, int)}, "labels"),
        ({"labels": np.full(6, -1), "classes": ["a", "b"]}, "labels"),
        ({"labels": np.array([0, 1, 2] * 2), "classes": ["a", "b"]}, "labels"),
        ({"images": np.array([None] * 6)}, "npz"),
        ({"labels": np.arange(6)}, "class 0"),
    ],
)
def test_an_npz_of_anything_else_is_refused(changes: dict[str, Any], key: str) -> None:
    np.savez("mine.npz", **{"images": images(6, 4, 4), "labels": np.zeros(6, int)} | changes)
    with pytest.raises(UserError, match=rf"^mine\.npz: [^\n]*\n? *[^\n]*{key}"):
        read_source(Path("mine.npz"), **data_params().wanted)


ROWS = [("0.png", "fig"), ("deep/1.png", "10"), ("2.png", "fig"), ("3.png", "10")]


def tabled(table: str, rows: list[tuple[str, str]], folder: str = "mine") -> None:
    if table.endswith("jsonl"):
        labels = [int(label) if label == "10" else label for _, label in rows]
        lines = [json.dumps({"file_name": name, "label": label}) for (name, _), label in zip(rows, labels, strict=True)]
    else:
        column = "image" if table == "labels.csv" else "file_name"
        lines = [f"id,{column},label", *(f"7,{name},{label}" for name, label in rows)]
    Path(folder, table).write_text("\n".join(lines) + "\n", "utf-8-sig" if table == "labels.csv" else None)


@pytest.mark.parametrize("table", ["labels.csv", "metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("parted", [None, "in each", "at the top"])
def test_a_table_names_the_classes(table: str, parted: str | None) -> None:
    folders = ["train/", "test/"] if parted else [""]
    for folder in folders:
        for number, (name, _) in enumerate(ROWS):
            save(f"mine/{folder}{name}", images(1, 4, 4)[0] + number)
        if parted != "at the top":
            tabled(table, ROWS, f"mine/{folder}")
    if parted == "at the top":
        tabled(table, [(folder + name, label) for folder in folders for name, label in ROWS])
    found = list_images(Path("mine"))
    assert (found.classes, found.tested, found.ignored) == (("10", "fig"), 4 if parted else 0, [])
    assert [each.label for each in found.pictures] == [1, 0, 1, 0] * len(folders)
    assert {*found.files} == {path for path in Path("mine").rglob("*") if path.is_file()}


def test_a_table_of_other_columns_is_refused() -> None:
    save("mine/0.png", images(1, 4, 4)[0])
    Path("mine/labels.csv").write_text("file,class\n0.png,fig\n")
    with pytest.raises(UserError, match=r"^mine/labels\.csv: .*columns image and label"):
        list_images(Path("mine"))


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (ROWS[:3], "3.png"),
        ([*ROWS, ("4.png", "fig")], "4.png"),
        ([*ROWS, ("2.png", "10")], "2.png"),
        ([*ROWS, ("deep//1.png", "fig")], "deep/1.png"),
    ],
)
def test_a_file_and_a_row_that_lack_the_other_and_a_second_row_are_named(
    rows: list[tuple[str, str]], named: str
) -> None:
    for number, (name, _) in enumerate(ROWS):
        save(f"mine/{name}", images(1, 4, 4)[0] + number)
    tabled("metadata.csv", rows)
    with pytest.raises(UserError, match=rf"^mine(: 1 fault\n  )?[^\n]*{named}[^\n]*$"):
        list_images(Path("mine"))
