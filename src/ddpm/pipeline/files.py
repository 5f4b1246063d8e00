"""Write files whole or not at all."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data`, whole or in parts, under a temporary name, then move it into place: a reader sees old or new.

    The temporary name is always the same, so that the next attempt replaces what a killed one has left.

    Raises:
        OSError: the disk is full, the folder is read-only, ...; whatever stood at `path` is untouched.
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
        error.filename = str(path)  # a full disk does not say where it is
        raise


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as indented JSON that ends in a newline; NaN and infinities are refused (ValueError)."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
