"""Writing files whole or not at all."""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, then move it into place: readers see the old file or the new one.

    The temporary name is always the same, so that the next attempt removes what a killed one has left.

    Raises:
        OSError: the disk is full, the folder is read-only, another process writes the same file, ...; whatever stood at
            `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if not os.path.samestat(os.fstat(file.fileno()), temporary.stat()):
                raise FileExistsError(errno.EEXIST, "another process is writing it")
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say where it is
        raise


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as indented JSON that ends in a newline; NaN and infinities are refused (ValueError)."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
