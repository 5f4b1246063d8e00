"""Keep results on disk, each under a hash of everything that determines it, so that none is computed twice."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_json
from studies.rare_class.closure import closure

SCRATCH = Path("build/rare_class")
RESULTS = Path("studies/rare_class/results")

Facts = dict[str, Any]


def key(function: Callable[..., Any], *facts: object) -> str:
    """Hash the code that a function's module imports, and facts: JSON-compatible values and params models."""
    text = json.dumps([_code(function.__module__), facts], default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_key(path: Path) -> str:
    """Hash a file.

    Raises:
        UserError: it does not exist.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro preprocess` makes it") from None


def made(key: str, make: Callable[[Path], Facts]) -> tuple[Path, Facts]:
    """Return the file of this key and its facts; if they are missing, `make` writes the file and returns the facts.

    The facts are written last, so that an interrupted result is made again.
    """
    path = SCRATCH / f"{key}.safetensors"
    if not path.exists():
        path.with_suffix(".json").unlink(missing_ok=True)
    return path, kept(key, lambda: make(path))


def kept(key: str, compute: Callable[[], Facts]) -> Facts:
    """Return the facts of this key; compute them if they are missing."""
    path = SCRATCH / f"{key}.json"
    if not path.exists():
        write_json(path, compute())
    facts: Facts = json.loads(path.read_text())
    return facts


def read_rows(path: Path) -> list[Facts]:
    """Read the rows of a file.

    Raises:
        UserError: it is damaged, perhaps by a merge.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UserError(f"{path}: a line is not valid JSON ({error}); `git checkout` it, or remove it") from None


@functools.cache
def _code(module: str) -> str:
    """Hash the project's files that importing a module runs, in their state at the first call."""
    digest = hashlib.sha256()
    for name in closure(module, Path.cwd()):
        digest.update(f"{name} {file_key(Path(name))}\n".encode())
    return digest.hexdigest()


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON-compatible")
