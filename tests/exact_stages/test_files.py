"""What is written is there whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exact_stages import files
from exact_stages.files import write_json, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("too few"), KeyboardInterrupt()])
def test_parts_that_end_early_leave_the_old_file(tmp_path: Path, error: BaseException) -> None:
    def parts() -> Iterator[bytes]:
        yield b"new"
        assert (tmp_path / "file").read_bytes() == b"old"
        raise error

    write_whole(tmp_path / "file", b"old")
    with pytest.raises(type(error)):
        write_whole(tmp_path / "file", parts())
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "file", b"new")
    assert caught.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_writer_has_left_is_replaced(tmp_path: Path) -> None:
    writer = f"""
import os, signal
from pathlib import Path
from exact_stages import files
files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_whole(Path({str(tmp_path)!r}) / "file", b"killed half-way")
"""
    write_whole(tmp_path / "file", b"old")
    source = Path(files.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", writer], cwd=source).returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"old"
    write_whole(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert names(tmp_path) == ["file"]


def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path: Path) -> None:
    # So does DVC lay out its cache where links are asked for.
    (tmp_path / "cached").write_bytes(b"cached")
    (tmp_path / "file").symlink_to(tmp_path / "cached")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "cached").read_bytes() == b"cached"
    assert not (tmp_path / "file").is_symlink()


def test_a_file_has_the_mode_that_the_user_has_chosen(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_json_is_indented_ends_in_a_newline_and_has_no_nan(tmp_path: Path) -> None:
    path, text = tmp_path / "values.json", '{\n  "b": 1,\n  "a": [\n    0.1,\n    null\n  ]\n}\n'
    write_json(path, {"b": 1, "a": [0.1, None]})
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_json(path, {"a": value})
    assert path.read_text() == text
