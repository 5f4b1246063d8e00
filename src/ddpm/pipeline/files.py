"""Write files whole or not at all."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data`, bytes or parts, to a temporary file, then move it to `path`; readers see the old file or the new.

    The temporary name is fixed, so the next attempt replaces the leftovers of a killed one.

    Raises:
        OSError: the disk is full, the folder is read-only, ...; the file at `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        try:
            with temporary.open("wb") as file:
                for part in [data] if isinstance(data, bytes) else data:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        error.filename = str(path)  # a full disk reports no path
        raise


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as indented JSON with a final newline; raise ValueError for NaN and infinities."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
