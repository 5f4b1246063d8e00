"""What a result is made of: the code, the params and the inputs, as they were when they were read."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import load_params
from ddpm.pipeline.process import CODE, ROOT, sha256

S = TypeVar("S", bound=BaseModel)


class Input(NamedTuple):
    """A file as it was when it was read; of a folder, `sha256` is of the list of its files, with sizes and times."""

    inode: int
    modified: int
    sha256: str


class Provenance:
    """Remembers what is read through it, and the code that this process runs; knows what of it has changed since."""

    def __init__(self) -> None:
        self._params: list[tuple[type[BaseModel], str, BaseModel]] = []
        self._inputs: dict[Path, Input] = {}

    def params(self, model: type[S], section: str = "") -> S:
        """See `load_params`."""
        found = load_params(model, section)
        self._params.append((model, section, found))
        return found

    def input(self, path: Path) -> Path:
        """Remember a file or folder that is about to be read; a missing one is for its reader to name."""
        if path.is_file() or path.is_dir():
            self._inputs[path] = _look(path)
        return path

    def facts(self) -> dict[str, Any]:
        """All that was read: hashes of the code and of inputs by their paths, params by their dotted names."""
        code = {code_name(path): digest for path, digest in sorted(CODE.items())}
        inputs = {str(path): found.sha256 for path, found in self._inputs.items()}
        params = {name: value for _, section, values in self._params for name, value in _flat(values, section).items()}
        return {**code, **inputs, **params}

    def fingerprint(self, *facts: object) -> str:
        """A hash of all that was read, and of further JSON-compatible facts."""
        return hashlib.sha256(json.dumps([self.facts(), facts], sort_keys=True).encode()).hexdigest()

    def changes(self) -> list[str]:
        """What is no longer as it was read."""
        found = [code_name(path) for path, digest in sorted(CODE.items()) if _digest(path) != digest]
        found += [str(path) for path, before in self._inputs.items() if _written(path, before)]
        for model, section, values in self._params:
            try:
                now = _flat(load_params(model, section), section)
            except UserError:
                found.append("params.yaml")
                continue
            before = _flat(values, section)
            found += [f"{name} ({before[name]}, now {now[name]})" for name in before if now[name] != before[name]]
        return found


def code_name(path: Path) -> str:
    """Of a file of the code, as dvc.yaml has it."""
    return str(path.relative_to(ROOT))


def _look(path: Path) -> Input:
    if path.is_dir():
        return Input(0, 0, _listing(path))
    found = path.stat()
    return Input(found.st_ino, found.st_mtime_ns, sha256(path))


def _written(path: Path, before: Input) -> bool:
    """Whether the file is another, or was written to: what is mapped into memory may not be what was hashed."""
    try:
        if path.is_dir():
            return _listing(path) != before.sha256
        found = path.stat()
        if found.st_ino == before.inode:
            return found.st_mtime_ns != before.modified
        return sha256(path) != before.sha256
    except OSError:
        return True


def _listing(folder: Path) -> str:
    """A hash of which files lie in a folder, and of when they were written."""
    lines = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone, or a link that leads nowhere
            if not path.is_dir():
                found = path.stat()
                lines.append(f"{path!r} {found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def _digest(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def _flat(values: BaseModel, prefix: str) -> dict[str, Any]:
    """The values of a params model by dotted names."""
    found: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}" if name else key, inner)
        else:
            found[name] = value

    add(prefix, values.model_dump(mode="json"))
    return found
