"""Files of arrays that are cut short while they are read, or that claim what they do not hold."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm.pipeline import arrays
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError

METADATA = {"__metadata__": {"ddpm": "{}"}}
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write(path: Path, header: object, data: bytes) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_file_that_is_cut_short_after_it_was_read_takes_no_process_with_it(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", {"a": torch.ones(2_000_000)})
    program = """
import sys
from pathlib import Path
from ddpm.pipeline.arrays import load_arrays
arrays, _ = load_arrays(Path(sys.argv[1]))
open(sys.argv[1], "r+b").truncate(100)
print(int(arrays["a"].sum()))
"""
    source = Path(arrays.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")], cwd=source, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, "2000000\n")


def test_what_is_written_by_hand_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "file", {**METADATA, "a": ENTRY}, struct.pack("<2f", 1, 2))
    assert load_arrays(path)[0]["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "F33"},
        {"dtype": ["F32"]},
        {"dtype": None},
        {"dtype": "F64"},
        {"shape": [3]},
        {"shape": [-1, -2]},
        {"shape": [2.0]},
        {"shape": [True, 2]},
        {"shape": ["2"]},
        {"shape": "ab"},
        {"shape": 2},
        {"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]},
        {"shape": [2**62], "data_offsets": [0, 2**64]},
        {"data_offsets": [8, 16]},
        {"data_offsets": [0, 9]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [0]},
        {"data_offsets": {}},
        {"data_offsets": None},
    ],
    ids=str,
)
def test_claims_that_do_not_hold_are_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = write(tmp_path / "file", {**METADATA, "a": {**ENTRY, **changes}}, bytes(8))
    with pytest.raises(UserError, match=r"^[^\n]*file: not a file of this pipeline, or damaged \([^\n]+\)$"):
        load_arrays(path)


@pytest.mark.parametrize(
    "header",
    [
        {**METADATA, "a": ENTRY, "b": ENTRY},
        {**METADATA, "a": ENTRY, "b": {**ENTRY, "data_offsets": [16, 24]}},
        {**METADATA, "a": [ENTRY]},
        {**METADATA, "a": None},
        {"a": ENTRY},
        {"__metadata__": ["ddpm"], "a": ENTRY},
        {"__metadata__": {"ddpm": {}}, "a": ENTRY},
        {"__metadata__": {"ddpm": "[]"}, "a": ENTRY},
        [METADATA],
        "null",
        '{"__metadata__": {"ddpm": "{}"}, "a": 0, "a": ' + json.dumps(ENTRY) + "}",
        "[" * 3000,
    ],
    ids=lambda header: str(header)[:60],
)
def test_headers_that_are_none_are_refused(header: object, tmp_path: Path) -> None:
    path = write(tmp_path / "file", header, bytes(8))
    with pytest.raises(UserError, match=r"^[^\n]*file: not a file of this pipeline, or damaged \([^\n]+\)$"):
        load_arrays(path)


def test_a_header_longer_than_its_limit_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "file", {**METADATA, "a": ENTRY}, bytes(8))
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert load_arrays(path, max_header=length)[0].keys() == {"a"}
    with pytest.raises(UserError, match=f"claims to have {length} bytes, more than {length - 1}"):
        load_arrays(path, max_header=length - 1)


def test_a_file_as_large_as_it_says_that_is_of_another_kind_takes_no_memory(tmp_path: Path) -> None:
    """A hole of 100 GB in a file takes no disk, and reading it would take all memory."""
    size = 100 * 10**9
    path = write(tmp_path / "file", {**METADATA, "a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}, b"")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    with pytest.raises(UserError, match="not a file of this pipeline, or damaged"):
        load_arrays(path, {"images"})
