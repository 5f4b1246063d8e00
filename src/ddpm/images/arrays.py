"""Read and write arrays as safetensors files.

A file is written whole or not at all. No file is trusted: reading checks names, sizes and metadata.
"""

import hashlib
import json
import math
import stat
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from exact_stages.console import UserError, shown
from exact_stages.files import write_whole

MAX_HEADER = 100_000_000  # bytes of names, shapes and metadata; the limit of the format
MAPPED = 1 << 28  # bytes; larger files are memory-mapped
_METADATA = "ddpm"  # one key with JSON: the order of several keys varies


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
    """Write int64 arrays like `save_arrays`, then a uint8 array given as name, shape and parts.

    Raises:
        ValueError: the parts do not fill the shape.
    """
    name, shape, parts = streamed
    header: dict[str, Any] = {"__metadata__": {_METADATA: json.dumps(metadata, sort_keys=True)}}
    end = 0
    for key, array in arrays.items():
        header[key] = {"dtype": "I64", "shape": list(array.shape), "data_offsets": [end, end := end + array.nbytes]}
    header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + math.prod(shape)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[bytes]:
        yield len(text).to_bytes(8, "little") + text
        for array in arrays.values():
            yield array.contiguous().numpy().tobytes()
        left = math.prod(shape)
        for part in parts:
            yield part.contiguous().numpy().tobytes()
            left -= part.nbytes
        if left:
            raise ValueError(f"{name}: got {math.prod(shape) - left} bytes for shape {shape}")

    write_whole(path, chunks())


def load_arrays(
    path: Path, names: set[str] | None = None, optional: Set[str] = frozenset(), max_header: int = MAX_HEADER
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read arrays and metadata that `save_arrays` wrote.

    Small files are copied into memory, since truncating a mapped file would crash the process. Files of at least
    MAPPED bytes are memory-mapped; untouched pages are not loaded.

    Args:
        names: the required names; only the `optional` ones may be added. None accepts any.
        max_header: the most bytes of names, shapes and metadata.

    Raises:
        UserError: the file is missing, damaged, or of another kind.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block
            raise ValueError("not a regular file")
        with path.open("rb") as opened:
            if (length := int.from_bytes(opened.read(8), "little")) > max_header:
                raise ValueError(f"its header has {length:,} bytes, more than {max_header:,}")
        with safe_open(path, framework="pt") as file:
            metadata, found = json.loads((file.metadata() or {})[_METADATA]), set(file.keys())
            if not isinstance(metadata, dict):
                raise ValueError("its metadata is not a JSON object")
            if names is not None and not names <= found <= names | optional:
                raise UserError(
                    f"{path}: holds {shown(str(sorted(found)))} where {sorted(names)} belong; make it again"
                )
            if path.stat().st_size >= MAPPED:
                return {name: file.get_tensor(name) for name in found}, metadata
        return load(path.read_bytes()), metadata
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc pull` or `dvc repro` restores it") from None
    except (SafetensorError, KeyError, ValueError, OSError, RuntimeError, MemoryError) as error:
        reason = shown(str(error) or type(error).__name__)
        raise UserError(f"{path}: not a file of this pipeline, or damaged ({reason}); make it again") from None


def contents(path: Path) -> dict[str, dict[str, Any]]:
    """Return the sha256 of each array by name, as "weights", and the metadata, of a file of `save_arrays`.

    Raises:
        UserError: see `load_arrays`.
    """
    arrays, metadata = load_arrays(path)
    weights = {}
    for name, array in sorted(arrays.items()):
        digest = hashlib.sha256(f"{array.dtype} {list(array.shape)} ".encode())
        digest.update(array.contiguous().flatten().view(torch.uint8).numpy().data)
        weights[name] = digest.hexdigest()
    return {"weights": weights, "metadata": metadata}
