"""Several processes write one file, or take one folder: one comes through, and what it leaves is whole."""

import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from ddpm.pipeline import files
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import claimed, write_whole

SOURCE = Path(files.__file__).parents[2]
SPAWN = multiprocessing.get_context("spawn")
ROUNDS = 150


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def writer(path: Path, byte: int, barrier: Barrier, outcomes: "Queue[tuple[int, str]]") -> None:
    for _ in range(ROUNDS):
        barrier.wait()
        try:
            write_whole(path, bytes([byte]) * 200_000)
            outcomes.put((byte, ""))
        except OSError as error:
            outcomes.put((byte, f"{error.filename}: {error.strerror}"))
        barrier.wait()


@pytest.mark.parametrize("writers", [2, 5])
def test_of_many_writers_at_one_time_one_comes_through(tmp_path: Path, writers: int) -> None:
    path = tmp_path / "file"
    barrier: Barrier = SPAWN.Barrier(writers + 1)
    outcomes: Queue[tuple[int, str]] = SPAWN.Queue()
    processes = [SPAWN.Process(target=writer, args=(path, byte, barrier, outcomes)) for byte in range(writers)]
    for process in processes:
        process.start()
    collisions = 0
    for _ in range(ROUNDS):
        barrier.wait(60)
        barrier.wait(60)
        found = [outcomes.get(timeout=60) for _ in processes]
        winners = [byte for byte, failure in found if not failure]
        assert winners, found
        assert path.read_bytes() in [bytes([byte]) * 200_000 for byte in winners]
        assert names(tmp_path) == ["file"]
        assert {failure for _, failure in found} <= {"", f"{path}: another process is writing it"}
        collisions += len(found) - len(winners)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert collisions > 0  # else this has tried nothing


def test_a_writer_that_is_killed_now_and_then_stops_nobody(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from ddpm.pipeline.files import write_whole
for number in range(10_000):
    write_whole(Path({str(tmp_path)!r}) / "file", bytes([number % 256]) * 3_000_000)
    print(flush=True)
"""
    for round_ in range(5):
        with subprocess.Popen([sys.executable, "-c", program], cwd=SOURCE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(0.013 * round_)
            process.send_signal(signal.SIGKILL)
        assert len(set((tmp_path / "file").read_bytes())) == 1
        assert (tmp_path / "file").stat().st_size == 3_000_000
    write_whole(tmp_path / "file", b"mine")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"mine"


def link(path: Path) -> None:
    (path.parent / "other").write_bytes(b"")
    path.symlink_to(path.parent / "other")


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # the names of sockets must be short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize(
    "stand_in", [lambda path: path.write_bytes(b"old"), lambda path: path.touch(0o400), os.mkfifo, link, bound]
)
def test_whatever_has_the_temporary_name_is_removed(stand_in: Callable[[Path], object], tmp_path: Path) -> None:
    stand_in(tmp_path / ".file.partial")
    write_whole(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert stat.S_ISREG((tmp_path / "file").lstat().st_mode)
    assert not os.path.lexists(tmp_path / ".file.partial")
    assert stand_in is not link or (tmp_path / "other").read_bytes() == b""


def test_a_folder_in_the_place_of_the_temporary_is_an_error_and_no_loop(tmp_path: Path) -> None:
    (tmp_path / ".file.partial").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "file", b"data")


def test_a_claimed_folder_is_made_and_empty_and_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    with claimed(folder):
        assert names(folder) == []
        refusal = r"^[^\n]*b: another process is writing there; name another folder$"
        with pytest.raises(UserError, match=refusal), claimed(folder):
            pass
        (folder / "file").touch()
    refusal = r"^[^\n]*b: exists and is not an empty folder; nothing was written$"
    with pytest.raises(UserError, match=refusal), claimed(folder):
        pass
    assert names(folder) == ["file"]


def test_a_folder_that_stays_empty_goes_again_unless_it_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with pytest.raises(ZeroDivisionError), claimed(tmp_path / name):
            1 / 0  # noqa: B018
    assert names(tmp_path) == ["old"]


def test_where_folders_cannot_be_locked_only_a_new_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")  # what NFS says

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    (tmp_path / "old").mkdir()
    with pytest.raises(UserError, match="old: cannot be locked"), claimed(tmp_path / "old"):
        pass
    with claimed(tmp_path / "new"):
        write_whole(tmp_path / "new/file", b"data")
    assert names(tmp_path / "new") == ["file"]


def claim(folder: Path, barrier: Barrier, outcomes: "Queue[str]") -> None:
    for number in range(ROUNDS):
        barrier.wait()
        try:
            with claimed(folder / str(number)):
                (folder / str(number) / str(os.getpid())).touch()
                outcomes.put("")
        except (UserError, OSError) as error:
            outcomes.put(str(error))


def test_of_many_that_claim_a_folder_one_has_it(tmp_path: Path) -> None:
    barrier: Barrier = SPAWN.Barrier(4)
    outcomes: Queue[str] = SPAWN.Queue()
    processes = [SPAWN.Process(target=claim, args=(tmp_path, barrier, outcomes)) for _ in range(4)]
    for process in processes:
        process.start()
    won = sum(outcomes.get(timeout=60) == "" for _ in range(4 * ROUNDS))
    for process in processes:
        process.join(60)
    assert won == ROUNDS
    assert all(len(names(tmp_path / str(number))) == 1 for number in range(ROUNDS))
