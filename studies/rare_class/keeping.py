"""What is kept so that it is not computed again: each result by a hash of all that decides it."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_json
from scripts.closure import closure

SCRATCH = Path("build/rare_class")
RESULTS = Path("studies/rare_class/results")

Facts = dict[str, Any]


def key(function: Callable[..., Any], *facts: object) -> str:
    """A hash of the code that a function's module imports, and of facts: JSON-compatible values and params models."""
    text = json.dumps([_code(function.__module__), facts], default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_key(path: Path) -> str:
    """A hash of a file.

    Raises:
        UserError: there is none.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro preprocess` makes it") from None


def made(key: str, make: Callable[[Path], Facts]) -> tuple[Path, Facts]:
    """The file of this key and the facts about it; `make` writes the one and gives the other, where they are not there.

    The facts are written last, so that what was cut off is made again.
    """
    path = SCRATCH / f"{key}.safetensors"
    if not path.exists():
        path.with_suffix(".json").unlink(missing_ok=True)
    return path, kept(key, lambda: make(path))


def kept(key: str, compute: Callable[[], Facts]) -> Facts:
    """The facts of this key, computed where they are not there."""
    path = SCRATCH / f"{key}.json"
    if not path.exists():
        write_json(path, compute())
    facts: Facts = json.loads(path.read_text())
    return facts


def read_rows(path: Path) -> list[Facts]:
    """The rows of a file.

    Raises:
        UserError: it is damaged, by a merge perhaps.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UserError(f"{path}: a line is not valid JSON ({error}); `git checkout` it, or remove it") from None


@functools.cache
def _code(module: str) -> str:
    """A hash of the project's files that importing a module runs, as they are when it is first asked for."""
    digest = hashlib.sha256()
    for name in closure(module, Path.cwd()):
        digest.update(f"{name} {file_key(Path(name))}\n".encode())
    return digest.hexdigest()


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON-compatible")
