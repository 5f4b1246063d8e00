"""What is written is there whole or not at all; a saved state serves its own run, and no other."""

import os
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from exact_stages import files
from exact_stages.files import KEPT, SavedState, write_json, write_whole


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    Path("file").write_bytes(b"old")
    return tmp_path


def is_old() -> bool:
    return Path("file").read_bytes() == b"old" and os.listdir() == ["file"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("too few"), KeyboardInterrupt()])
def test_parts_that_end_early_leave_the_old_file(error: BaseException) -> None:
    def parts() -> Iterator[bytes]:
        yield b"new"
        assert Path("file").read_bytes() == b"old"
        raise error

    with pytest.raises(type(error)):
        write_whole(Path("file"), parts())
    assert is_old()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(Path("file"), b"new")
    assert caught.value.filename == "file"
    assert is_old()


def test_who_writes_a_file_meanwhile_waits_and_nothing_is_left() -> None:
    Path(".file.partial").write_bytes(b"of a process that was killed")
    other = get_context("spawn").Process(target=write_whole, args=(Path("file"), b"second"))

    def parts() -> Iterator[bytes]:
        yield b"fi"
        other.start()
        other.join(2)
        yield b"rst"

    write_whole(Path("file"), parts())
    other.join(60)
    assert other.exitcode == 0
    assert Path("file").read_bytes() == b"second"
    assert os.listdir() == ["file"]


def test_a_pipe_stays_a_pipe() -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(Path("pipe"), iter([b"ne", b"w"]))
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize("name", ["file", "new"])
def test_a_link_is_followed(name: str) -> None:
    Path("below").mkdir()
    Path("below/link").symlink_to(f"../{name}")
    write_whole(Path("below/link"), b"new")
    assert Path("below/link").is_symlink()
    assert Path(name).read_bytes() == b"new"


def test_a_link_to_a_read_only_file_is_replaced() -> None:
    # So does DVC lay out its cache where links are asked for.
    Path("file").chmod(0o444)
    Path("link").symlink_to("file")
    write_whole(Path("link"), b"new")
    assert Path("file").read_bytes() == b"old"
    assert not Path("link").is_symlink()


def test_json_is_indented_ends_in_a_newline_and_has_no_nan() -> None:
    text = '{\n  "b": 1,\n  "a": [\n    0.1,\n    null\n  ]\n}\n'
    write_json(Path("file"), {"b": 1, "a": [0.1, None]})
    with pytest.raises(ValueError, match="JSON"):
        write_json(Path("file"), {"a": float("nan")})
    assert Path("file").read_text() == text


def test_a_state_is_of_its_stage_and_key_and_lies_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "repository")  # DVC works in a temporary copy
    SavedState("train", "a").write(b"first\n\0")
    SavedState("train", "a").write(b"second\n\0")
    assert SavedState("train", "a").read() == b"second\n\0"
    assert SavedState("train", "b").read() is None
    assert SavedState("sample", "a").read() is None
    assert os.listdir("repository/.resume") == ["train-a.state"]


def test_a_damaged_state_is_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    state = SavedState("train", "a")
    state.write(b"weights")
    whole = state.path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        for data in (bytes(damaged), whole[:position]):
            state.path.write_bytes(data)
            assert state.read() is None
    assert capsys.readouterr().err == f"{state.path}: damaged; train starts from the beginning\n" * 2 * len(whole)


def test_the_newest_states_of_a_stage_are_kept() -> None:
    SavedState("sample", "0").write(b"of another stage")
    SavedState("train-large", "0").write(b"of another stage")
    for number in range(KEPT + 2):
        SavedState("train", str(number)).write(b"state")
        for path in Path(".resume").glob("train-*"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    kept = {f"train-{number}.state" for number in range(2, KEPT + 2)}
    assert {*os.listdir(".resume")} == kept | {"sample-0.state", "train-large-0.state"}
