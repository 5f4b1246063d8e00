"""Arrays are read back as they were written, in parts or whole, and what is no file of ours is refused by name."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from ddpm.images import arrays
from ddpm.images.arrays import load_arrays, save_arrays, save_streamed
from tests.small import FRUITS, images

SHAPE = (11, *FRUITS.shape)
IMAGES = images(11, FRUITS.shape)
OTHERS = {"labels": torch.arange(11) % 3 - 1, "groups": torch.arange(22).view(2, 11).T[:, 0], "none": torch.arange(0)}
METADATA = {"data": {"name": "ä", "classes": ["fig", "no"]}, "x": None}


def streamed(path: Path, parts: object) -> bytes:
    save_streamed(path, OTHERS, ("images", SHAPE, parts), METADATA)  # type: ignore[arg-type]
    return path.read_bytes()


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    a, b = torch.arange(3), torch.ones(2, 2)
    save_arrays(tmp_path / "first", {"a": a, "b": b}, {"x": 1, "y": {"p": 1, "q": 2}})
    save_arrays(tmp_path / "second", {"b": b, "a": a.clone()}, {"y": {"q": 2, "p": 1}, "x": 1})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    whole = streamed(tmp_path / "whole", [IMAGES])
    assert streamed(tmp_path / "parts", IMAGES.split([4, 0, 7])) == whole
    assert streamed(tmp_path / "turned", IMAGES.to(memory_format=torch.channels_last).split(1)) == whole
    assert int.from_bytes(whole[:8], "little") % 8 == 0, "numbers of 8 bytes begin at a multiple of 8"


@pytest.mark.parametrize("mapped", [1 << 28, 0])
def test_what_was_streamed_is_what_safetensors_reads_and_no_change_of_it_reaches_the_file(
    tmp_path: Path, mapped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAPPED", mapped)
    path = tmp_path / "file"
    before = streamed(path, IMAGES.split(4))
    read, again = safetensors.torch.load_file(path), load_arrays(path)[0]
    found, metadata = load_arrays(path, {"images", "labels", "groups"}, {"none"})
    assert metadata == METADATA
    assert found.keys() == read.keys() == {"images", *OTHERS}
    for name, array in {"images": IMAGES, **OTHERS}.items():
        assert torch.equal(read[name], array)
        assert torch.equal(found[name], array)
        assert found[name].dtype == array.dtype
    found["images"][:] = 7
    assert path.read_bytes() == before
    save_arrays(path, {"images": torch.zeros(1)})
    path.unlink()
    assert torch.equal(again["images"], IMAGES)
    assert torch.equal(again["labels"], OTHERS["labels"])
