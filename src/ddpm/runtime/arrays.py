"""Arrays on disk, as safetensors files: written whole or not at all, and read strictly, for none of them is trusted."""

import json
import stat
from collections.abc import Set
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ddpm.runtime.console import UserError, shown
from ddpm.runtime.files import write_whole

MAX_HEADER = 100_000_000  # bytes of names, shapes and metadata, as the format has it: states of long runs hold curves
_METADATA = "ddpm"  # one key, holding JSON: safetensors writes several keys in an order that varies


def save_arrays(path: Path, arrays: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write named tensors and JSON-compatible `metadata`; equal content gives equal bytes."""
    contiguous = {name: array.detach().cpu().contiguous() for name, array in arrays.items()}
    write_whole(path, save(contiguous, {_METADATA: json.dumps(metadata or {}, sort_keys=True)}))


def load_arrays(
    path: Path,
    names: set[str] | None = None,
    optional: Set[str] = frozenset(),
    max_header: int = MAX_HEADER,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_arrays` wrote, into memory of its own: a mapped file that is cut short takes the process with it.

    Args:
        names: the names that must be there, and no others but the `optional` ones; None takes any.
        max_header: bytes that names, shapes and metadata may have.

    Raises:
        UserError: the file is missing, damaged, or not of this kind.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would be to wait for someone to write to it
            raise ValueError("no regular file")
        with path.open("rb") as opened:
            if (length := int.from_bytes(opened.read(8), "little")) > max_header:
                raise ValueError(f"its header claims to have {length:,} bytes, more than {max_header:,}")
        with safe_open(path, framework="pt") as file:
            metadata, found = json.loads((file.metadata() or {})[_METADATA]), set(file.keys())
        if not isinstance(metadata, dict):
            raise ValueError("its metadata is no object")
        if names is not None and not names <= found <= names | optional:
            raise UserError(f"{path}: holds {shown(str(sorted(found)))} where {sorted(names)} belong")
        return load(path.read_bytes()), metadata
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc pull` or `dvc repro` brings the pipeline's files") from None
    except (SafetensorError, KeyError, ValueError, OSError, RuntimeError, MemoryError) as error:
        reason = shown(str(error) or type(error).__name__)
        raise UserError(f"{path}: not a file of this pipeline, or damaged ({reason})") from None
