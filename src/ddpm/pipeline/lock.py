"""Locks of files: one process at a time, however it ends."""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from ddpm.pipeline.console import UserError

TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


def try_lock(file: IO[str]) -> bool:
    """Lock an open file for this process, unless another has it.

    Raises:
        UserError: the file system has no locks.
    """
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise UserError(
            f"{file.name}: this file system has no locks ({error.strerror}), so that two runs could mix; "
            "put the repository on another"
        ) from None
    return True


def take_lock(path: Path, what: str, patience: float = 0) -> IO[str]:
    """Lock `path`, and leave this process's id in it; the lock lasts as long as the file stays open.

    Args:
        patience: seconds to wait for another process that has it.

    Raises:
        UserError: another process has it still, which the message names; or the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    deadline = time.monotonic() + patience
    while not try_lock(file):
        if time.monotonic() >= deadline:
            file.seek(0)
            raise UserError(f"{what}: process {file.read().strip()} is at it already; wait for it, or end it")
        time.sleep(0.1)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def holds(file: IO[str], path: Path) -> bool:
    """Whether the open lock is the one at this path, and was not removed."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
