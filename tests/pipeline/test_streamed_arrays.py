"""Arrays that are written in parts, and files that are mapped into memory and not read."""

import json
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from ddpm.pipeline import arrays
from ddpm.pipeline.arrays import load_arrays, save_arrays, save_streamed
from ddpm.pipeline.console import UserError
from tests.small import FRUITS, images

SHAPE = (11, *FRUITS.shape)
IMAGES = images(11, FRUITS.shape)
OTHERS = {"labels": torch.arange(11) % 3 - 1, "groups": torch.arange(22).view(2, 11).T[:, 0], "none": torch.arange(0)}
METADATA = {"data": {"name": "ä", "classes": ["fig", "no"]}, "x": None}


def streamed(path: Path, *sizes: int) -> Path:
    """The images in parts of these sizes."""
    save_streamed(path, OTHERS, ("images", SHAPE, IMAGES.split([*sizes])), METADATA)
    return path


@pytest.mark.parametrize("sizes", [(11,), (1,) * 11, (4, 0, 7), (10, 1)])
def test_what_was_streamed_is_what_safetensors_reads(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    path = streamed(tmp_path / "new" / "file", *sizes)
    read = safetensors.torch.load_file(path)
    assert read.keys() == {"images", *OTHERS}
    assert torch.equal(read["images"], IMAGES)
    for name, array in OTHERS.items():
        assert torch.equal(read[name], array)
        assert read[name].dtype == torch.int64
    with safe_open(path, framework="pt") as file:
        assert {name: json.loads(text) for name, text in file.metadata().items()} == {"ddpm": METADATA}
    found, metadata = load_arrays(path, {"images", *OTHERS})
    assert metadata == METADATA
    assert all(torch.equal(found[name], read[name]) for name in read)
    assert os.listdir(path.parent) == ["file"]


def test_the_bytes_do_not_hang_on_the_parts_nor_on_how_they_lie_in_memory(tmp_path: Path) -> None:
    whole = streamed(tmp_path / "whole", 11).read_bytes()
    assert streamed(tmp_path / "parts", 3, 3, 5).read_bytes() == whole
    turned = IMAGES.to(memory_format=torch.channels_last)
    assert not turned.is_contiguous()
    save_streamed(tmp_path / "turned", OTHERS, ("images", SHAPE, turned.split(4)), METADATA)
    assert (tmp_path / "turned").read_bytes() == whole
    assert int.from_bytes(whole[:8], "little") % 8 == 0, "numbers of 8 bytes begin at a multiple of 8"


@pytest.mark.parametrize("shape", [(0, *FRUITS.shape), (1024 * 256,)])
def test_shapes_at_the_ends(tmp_path: Path, shape: tuple[int, ...]) -> None:
    levels = (torch.arange(shape[0]) % 256).to(torch.uint8).view(shape)
    save_streamed(tmp_path / "file", {}, ("images", shape, levels.split(1000)), {})
    assert torch.equal(load_arrays(tmp_path / "file", {"images"})[0]["images"], levels)


@pytest.mark.parametrize("count", [0, 10, 12])
def test_parts_of_another_sum_are_refused_and_the_old_file_stays(tmp_path: Path, count: int) -> None:
    before = streamed(tmp_path / "file", 11).read_bytes()
    wrong = images(count, FRUITS.shape)
    with pytest.raises(ValueError, match=r"^images: .* for shape \(11, 3, 16, 8\)$"):
        save_streamed(tmp_path / "file", OTHERS, ("images", SHAPE, wrong.split(3)), METADATA)
    assert (tmp_path / "file").read_bytes() == before
    assert os.listdir(tmp_path) == ["file"]


def test_a_part_that_cannot_be_made_leaves_the_old_file_alone(tmp_path: Path) -> None:
    def parts() -> Iterator[Tensor]:
        yield IMAGES[:5]
        raise UserError("a picture has changed")

    before = streamed(tmp_path / "file", 11).read_bytes()
    with pytest.raises(UserError, match=r"^a picture has changed$"):
        save_streamed(tmp_path / "file", OTHERS, ("images", SHAPE, parts()), METADATA)
    assert (tmp_path / "file").read_bytes() == before
    assert os.listdir(tmp_path) == ["file"]


def test_parts_are_made_one_after_another_and_let_go(tmp_path: Path) -> None:
    made: list[weakref.ref[Tensor]] = []

    def parts() -> Iterator[Tensor]:
        for index in range(11):
            part = IMAGES[index : index + 1].clone()
            made.append(weakref.ref(part))
            yield part
            del part
            assert sum(each() is not None for each in made) <= 1

    save_streamed(tmp_path / "file", OTHERS, ("images", SHAPE, parts()), METADATA)
    assert len(made) == 11


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is mapped."""
    monkeypatch.setattr(arrays, "MAPPED", 0)


@pytest.mark.usefixtures("mapped")
def test_a_mapped_file_is_read_as_another(tmp_path: Path) -> None:
    path = streamed(tmp_path / "file", 11)
    found, metadata = load_arrays(path, {"images", "labels", "groups"}, {"none"})
    assert metadata == METADATA
    assert found.keys() == {"images", *OTHERS}
    assert torch.equal(found["images"], IMAGES)
    assert all(torch.equal(found[name], array) for name, array in OTHERS.items())
    with pytest.raises(UserError, match=r"file: holds \['groups', 'images', 'labels', 'none'\] where \['images'\]"):
        load_arrays(path, {"images"})


@pytest.mark.usefixtures("mapped")
def test_mapped_arrays_outlive_their_file_and_leave_it_alone(tmp_path: Path) -> None:
    path = streamed(tmp_path / "file", 11)
    before = path.read_bytes()
    found, _ = load_arrays(path)
    found["images"][:] = 7
    assert path.read_bytes() == before
    assert torch.equal(load_arrays(path)[0]["images"], IMAGES)
    again, _ = load_arrays(path)
    save_arrays(path, {"images": torch.zeros(1)})
    assert torch.equal(again["images"], IMAGES)
    path.unlink()
    assert torch.equal(again["labels"], OTHERS["labels"])


@pytest.mark.usefixtures("mapped")
@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_mapped_file_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = streamed(tmp_path / "file", 11)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"file: not a file of this pipeline, or damaged"):
        load_arrays(path)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")
def test_of_a_large_file_only_what_is_looked_at_takes_memory(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    count = 1 << 32  # bytes, of a hole that takes no disk
    header = {
        "__metadata__": {"ddpm": "{}"},
        "images": {"dtype": "U8", "shape": [count // 256, 256], "data_offsets": [0, count]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "file"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, path.stat().st_size + count)
    before = resident()
    found = load_arrays(path, {"images"})[0]["images"]
    assert found.shape == (count // 256, 256)
    assert found[-1].sum() == 0
    assert resident() - before < 1 << 28
