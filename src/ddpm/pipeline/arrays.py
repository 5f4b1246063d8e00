"""Arrays on disk, as safetensors files: written whole or not at all, and read strictly, for none of them is trusted."""

import json
import math
import stat
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ddpm.pipeline.console import UserError, shown
from ddpm.pipeline.files import write_whole

MAX_HEADER = 100_000_000  # bytes of names, shapes and metadata, as the format has it: states of long runs hold curves
MAPPED = 1 << 28  # bytes from which on a file is mapped into memory and not read
_METADATA = "ddpm"  # one key, holding JSON: safetensors writes several keys in an order that varies


def save_arrays(path: Path, arrays: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write named tensors and JSON-compatible `metadata`; equal content gives equal bytes."""
    contiguous = {name: array.detach().cpu().contiguous() for name, array in arrays.items()}
    write_whole(path, save(contiguous, {_METADATA: json.dumps(metadata or {}, sort_keys=True)}))


def save_streamed(
    path: Path,
    arrays: dict[str, Tensor],
    streamed: tuple[str, tuple[int, ...], Iterable[Tensor]],
    metadata: dict[str, Any],
) -> None:
    """Write int64 arrays as `save_arrays` does, and behind them one of uint8 in parts: its name, shape and parts.

    Raises:
        ValueError: the parts are more or less than the shape says.
    """
    name, shape, parts = streamed
    header: dict[str, Any] = {"__metadata__": {_METADATA: json.dumps(metadata, sort_keys=True)}}
    end = 0
    for key, array in arrays.items():
        header[key] = {"dtype": "I64", "shape": list(array.shape), "data_offsets": [end, end := end + array.nbytes]}
    header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + math.prod(shape)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def pieces() -> Iterator[bytes]:
        yield len(text).to_bytes(8, "little") + text
        for array in arrays.values():
            yield array.contiguous().numpy().tobytes()
        left = math.prod(shape)
        for part in parts:
            yield part.contiguous().numpy().tobytes()
            left -= part.nbytes
        if left:
            raise ValueError(f"{name}: {math.prod(shape) - left} bytes came for shape {shape}")

    write_whole(path, pieces())


def load_arrays(
    path: Path,
    names: set[str] | None = None,
    optional: Set[str] = frozenset(),
    max_header: int = MAX_HEADER,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_arrays` wrote, into memory of its own: a mapped file that is cut short takes the process with it.

    From MAPPED bytes on it is mapped all the same, and what is not looked at takes no memory.

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
            if path.stat().st_size >= MAPPED:
                return {name: file.get_tensor(name) for name in found}, metadata
        return load(path.read_bytes()), metadata
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc pull` or `dvc repro` brings the pipeline's files") from None
    except (SafetensorError, KeyError, ValueError, OSError, RuntimeError, MemoryError) as error:
        reason = shown(str(error) or type(error).__name__)
        raise UserError(f"{path}: not a file of this pipeline, or damaged ({reason})") from None
