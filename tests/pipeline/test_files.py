"""What is written is there whole or not at all."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpm.pipeline import files
from ddpm.pipeline.files import write_json, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_whole_creates_parents_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_whole(path, b"old, and longer")
    assert path.read_bytes() == b"old, and longer"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("parts", [[b"new ", b"", b"and in parts"], [b""], []])
def test_write_whole_of_parts_shows_no_one_a_part(tmp_path: Path, parts: list[bytes]) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old, and longer than the new one")

    def one_by_one() -> Iterator[bytes]:
        for part in parts:
            assert path.read_bytes() == b"old, and longer than the new one"
            yield part

    write_whole(path, one_by_one())
    assert path.read_bytes() == b"".join(parts)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "picture"), ValueError("too few"), SystemExit(1)])
def test_write_whole_of_parts_that_end_early_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    def parts() -> Iterator[bytes]:
        yield b"new"
        raise error

    write_whole(tmp_path / "file", b"old")
    with pytest.raises(type(error)):
        write_whole(tmp_path / "file", parts())
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_write_whole_gives_the_mode_that_the_user_has_chosen(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_write_whole_removes_what_a_killed_attempt_has_left(tmp_path: Path) -> None:
    writer = f"""
import os, signal
from pathlib import Path
from ddpm.pipeline import files
files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_whole(Path({str(tmp_path)!r}) / "file", b"killed half-way")
"""
    source = Path(files.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", writer], cwd=source).returncode == -signal.SIGKILL
    assert names(tmp_path) == [".file.partial"]
    write_whole(tmp_path / "file", b"whole")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_of_two_writers_of_one_file_neither_leaves_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(_: int) -> None:  # the other begins while the first one writes
        (tmp_path / ".file.partial").unlink()
        (tmp_path / ".file.partial").write_bytes(b"ha")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(files.os, "fsync", meanwhile)
    with pytest.raises(FileExistsError, match="another process is writing it"):
        write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_write_whole_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    # So does DVC lay out its cache where links are asked for.
    (tmp_path / "cached").write_bytes(b"cached")
    (tmp_path / "file").symlink_to(tmp_path / "cached")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "cached").read_bytes() == b"cached"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    write_whole(tmp_path / "file", b"old")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(files.os, step, fail)
        with pytest.raises(type(error)):
            write_whole(tmp_path / "file", b"new")
    if isinstance(error, OSError):
        assert error.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_write_json_is_indented_and_ends_in_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "values.json", {"b": 1, "a": [0.1, None]})
    text = (tmp_path / "values.json").read_text()
    assert text == '{\n  "b": 1,\n  "a": [\n    0.1,\n    null\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_write_json_refuses_what_is_no_json(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "values.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "values.json", {"a": value})
    assert json.loads((tmp_path / "values.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["values.json"]
