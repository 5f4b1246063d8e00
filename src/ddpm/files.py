"""Writing files whole or not at all."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, then move it into place: readers see the old file or the new one.

    Raises:
        OSError: the disk is full, the folder is read-only, ...; whatever stood at `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, which a shared cache could not read
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say where it is
        raise


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as indented JSON that ends in a newline; NaN and infinities are refused (ValueError)."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
