"""Arrays are read back as they were written, and what is no file of ours is refused by name."""

import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {
        "bytes": torch.arange(256, dtype=torch.uint8).view(2, 128),
        "floats": torch.tensor([0.1, -0.0, float("inf"), float("nan"), 1e-45]),
        "double": torch.tensor([[1 / 3]], dtype=torch.float64),
        "turned": torch.arange(6).view(2, 3).T,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "empty": torch.empty(2, 0, dtype=torch.uint8),
        "scalar": torch.tensor(7),
    }
    # Halves of one piece of memory, as the sample stage writes them.
    arrays["left"], arrays["right"] = torch.arange(8).view(2, 4)
    metadata = {"list": [1, 2], "text": "à", "nested": {"x": None}}
    save_arrays(tmp_path / "file.safetensors", arrays, metadata)
    loaded, read = load_arrays(tmp_path / "file.safetensors", set(arrays))
    assert read == metadata
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        torch.testing.assert_close(loaded[name], array, rtol=0, atol=0, equal_nan=True)


def test_arrays_without_metadata_have_none(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", {"a": torch.zeros(1)})
    assert load_arrays(tmp_path / "file")[1] == {}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    a, b = torch.arange(3), torch.ones(2, 2)
    save_arrays(tmp_path / "first", {"a": a, "b": b}, {"x": 1, "y": {"p": 1, "q": 2}, "z": "s"})
    save_arrays(tmp_path / "second", {"b": b, "a": a.clone()}, {"z": "s", "y": {"q": 2, "p": 1}, "x": 1})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_writing_into_loaded_arrays_leaves_the_file_alone(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", {"a": torch.arange(3)})
    before = (tmp_path / "file").read_bytes()
    loaded, _ = load_arrays(tmp_path / "file")
    loaded["a"] += 100
    assert loaded["a"].tolist() == [100, 101, 102]
    assert (tmp_path / "file").read_bytes() == before
    assert load_arrays(tmp_path / "file")[0]["a"].tolist() == [0, 1, 2]


def test_arrays_loaded_before_a_rewrite_keep_their_values(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", {"a": torch.zeros(5000)})
    loaded, _ = load_arrays(tmp_path / "file")
    save_arrays(tmp_path / "file", {"a": torch.ones(5000)})
    assert loaded["a"].sum() == 0


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def truncated(path: Path) -> None:
    save_arrays(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-1])


def header_only(path: Path) -> None:
    save_arrays(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        header_only,
        zip_file,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 1000),
        lambda path: path.write_text("<html>not found</html>"),
        lambda path: path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)})),
        lambda path: path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, {"ddpm": "{"})),
        lambda path: path.mkdir(),
        lambda path: torch.save({"a": torch.zeros(1)}, path),
    ],
    ids=["short", "header", "zip", "empty", "bytes", "html", "no metadata", "broken metadata", "folder", "pickle"],
)
def test_files_that_are_none_of_ours_are_refused_by_name(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "file.safetensors"
    damage(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"file\.safetensors: not a file of this pipeline, or damaged"):
        load_arrays(path)


def test_a_missing_file_is_named_with_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.safetensors: no such file; `dvc pull` or `dvc repro`"):
        load_arrays(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("wanted", [{"images"}, {"images", "labels", "more"}, {"images", "label"}, set()])
def test_other_names_than_wanted_are_refused(tmp_path: Path, wanted: set[str]) -> None:
    save_arrays(tmp_path / "file", {"images": torch.zeros(1), "labels": torch.zeros(1)})
    with pytest.raises(UserError, match=r"file: holds \['images', 'labels'\] where "):
        load_arrays(tmp_path / "file", wanted)


@pytest.mark.parametrize("optional", [{"labels"}, {"labels", "more"}])
def test_optional_names_may_be_there_or_not(tmp_path: Path, optional: set[str]) -> None:
    for arrays in ({"images": torch.ones(1)}, {"images": torch.ones(1), "labels": torch.zeros(1)}):
        save_arrays(tmp_path / "file", arrays)
        assert load_arrays(tmp_path / "file", {"images"}, optional)[0] == arrays


@pytest.mark.parametrize(
    ("names", "optional"), [({"images"}, {"more"}), ({"more"}, {"images", "labels"}), (set(), {"images"})]
)
def test_what_is_neither_wanted_nor_optional_is_refused(tmp_path: Path, names: set[str], optional: set[str]) -> None:
    save_arrays(tmp_path / "file", {"images": torch.zeros(1), "labels": torch.zeros(1)})
    with pytest.raises(UserError, match=r"file: holds \['images', 'labels'\] where "):
        load_arrays(tmp_path / "file", names, optional)
