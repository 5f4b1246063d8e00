"""Writing files whole or not at all, and folders for one process alone."""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ddpm.pipeline.console import UserError
from ddpm.pipeline.lock import TAKEN

_IN_THE_WAY = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO}  # another user's file, a link, a pipe or socket


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data`, in parts if it likes, under a temporary name, then move it into place: a reader sees old or new.

    The temporary name is always the same, so that the next attempt removes what a killed one has left. Of several
    writers at one time at least one comes through; those that find it at work fail.

    Raises:
        OSError: the disk is full, the folder is read-only, another process writes the same file, ...; whatever stood at
            `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(_take(temporary), "wb") as file:
            try:
                for part in [data] if isinstance(data, bytes) else data:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
                if not _is_at(temporary, file.fileno()):
                    raise FileExistsError(errno.EEXIST, "another process is writing it")
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    if _is_at(temporary, file.fileno()):
                        temporary.unlink()
                raise
    except OSError as error:
        error.filename = str(path)  # a full disk does not say where it is
        raise


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as indented JSON that ends in a newline; NaN and infinities are refused (ValueError)."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Inside the block the folder, made or found empty, is this process's alone, and can be written to.

    The lock is the folder's own: it leaves nothing behind, however the process ends. A folder that was made and stays
    empty is removed again.

    Raises:
        UserError: it is not empty, or another process has it, or it exists where folders cannot be locked.
        OSError: it cannot be made or written to; or the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = False
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        new = True
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                new = False
                raise UserError(f"{folder}: another process is writing there; name another folder") from None
            if not new:  # on a network, say; of those who make a folder only one succeeds
                raise UserError(f"{folder}: cannot be locked ({error.strerror}); name a new folder") from None
        if any(folder.iterdir()) or not os.path.samestat(os.fstat(lock), folder.stat()):
            raise UserError(f"{folder}: exists and is not an empty folder; nothing was written")
        _try_to_write(folder)
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(lock)


def _try_to_write(folder: Path) -> None:
    probe = folder / ".probe"
    try:
        write_whole(probe, bytes(4096))
        probe.unlink()
    except OSError as error:
        error.filename = str(folder)
        raise


def _take(temporary: Path) -> int:
    """Open a new file of this name, and lock it as a sign of life.

    Raises:
        FileExistsError: a living process has it.
    """
    while True:
        try:
            opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if error.errno not in _IN_THE_WAY or not os.path.lexists(temporary):
                raise
            temporary.unlink()
            continue
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                os.close(opened)
                raise FileExistsError(errno.EEXIST, "another process is writing it") from None
        # Whoever had it may have moved it into place meanwhile, and this would write into the finished file.
        if _is_at(temporary, opened):
            found = os.fstat(opened)
            if stat.S_ISREG(found.st_mode) and not found.st_size:
                return opened
            temporary.unlink()  # what a killed process has left
        os.close(opened)


def _is_at(path: Path, opened: int) -> bool:
    """Whether the open file is the one of this name."""
    try:
        return os.path.samestat(os.fstat(opened), path.lstat())
    except FileNotFoundError:
        return False
