"""Arrays on disk, as safetensors files: written whole or not at all, read strictly, mapped straight into memory."""

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ddpm.runtime.console import UserError
from ddpm.runtime.files import write_whole

_METADATA = "ddpm"  # one key, holding JSON: safetensors writes several keys in an order that varies


def save_arrays(path: Path, arrays: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write named tensors and JSON-compatible `metadata`; equal content gives equal bytes."""
    contiguous = {name: array.detach().cpu().contiguous() for name, array in arrays.items()}
    write_whole(path, save(contiguous, {_METADATA: json.dumps(metadata or {}, sort_keys=True)}))


def load_arrays(
    path: Path, names: set[str] | None = None, optional: Set[str] = frozenset()
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_arrays` wrote; the tensors are memory-mapped copy-on-write, so the file is never changed.

    Args:
        names: the names that must be there, and no others but the `optional` ones; None takes any.

    Raises:
        UserError: the file is missing, damaged, or not of this kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[_METADATA])
            if not isinstance(metadata, dict):
                raise ValueError("its metadata is no object")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc pull` or `dvc repro` brings the pipeline's files") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a file of this pipeline, or damaged ({error})") from None
    if names is not None and not names <= arrays.keys() <= names | optional:
        raise UserError(f"{path}: holds {sorted(arrays)} where {sorted(names)} belong")
    return arrays, metadata
