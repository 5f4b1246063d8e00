import errno
import fcntl
import os
from pathlib import Path

import pytest
from ddpm.pipeline.lock import holds, take_lock, try_lock

from ddpm.pipeline.console import UserError


def test_a_lock_lasts_as_long_as_its_file_is_open(tmp_path: Path) -> None:
    path = tmp_path / "new/lock"
    first = take_lock(path, "train")
    with path.open("a") as other:
        assert not try_lock(other)
        first.close()
        assert try_lock(other)


def test_a_lock_names_its_holder_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("123456789")
    take_lock(path, "train")
    assert path.read_text() == str(os.getpid())


def test_a_lock_that_was_removed_is_held_no_more(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with take_lock(path, "train") as file:
        assert holds(file, path)
        path.unlink()
        assert not holds(file, path)
        path.touch()
        assert not holds(file, path)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        UserError, match=r"lock: this file system has no locks \(Operation not supported\), so that two"
    ):
        take_lock(tmp_path / "lock", "train")
