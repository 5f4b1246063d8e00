"""Run a stage of the pipeline under a lock, and remove its outputs if code, params or inputs changed meanwhile.

DVC hashes code, params and inputs only after a stage has ended. An edit during the run would make DVC record outputs
for inputs that the stage never read. So a stage hashes them itself, before and after.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_json, write_whole
from ddpm.pipeline.params import load_params, read_yaml
from ddpm.pipeline.process import CODE, hash_code, rank, sha256

LOCKS = Path(".resume")  # of this workspace; a temporary copy has its own
PATIENCE = 10  # seconds; after DVC is killed, a stage may still be saving

S = TypeVar("S", bound=BaseModel)


class Stage:
    """One run of a stage, as a context manager that records what the stage reads and writes.

    Under torchrun, only rank 0 takes the lock and writes.

    Raises:
        UserError: on entering, another run of the stage holds the lock; on leaving, code, params or inputs have
            changed, and the outputs are removed.
    """

    def __init__(self, name: str, item: str = "") -> None:
        """Name the stage and, if it has a matrix in dvc.yaml, the item of this run."""
        self.name = f"{name}-{item}" if item else name
        self.item = item
        self.main = rank() == 0
        self._stage = name
        self._params: list[tuple[type[BaseModel], str]] = []
        self._inputs: list[Path] = []
        self._outputs: set[Path] = set()
        self._read: dict[str, Any] = {}  # hashes of inputs and values of params, by name
        self._lock = FileLock(LOCKS / f"{self.name}.lock")

    def params(self, model: type[S], section: str = "") -> S:
        """Load params, see `load_params`, and record their values."""
        found = load_params(model, section)
        self._params.append((model, section))
        self._read |= _flat(found, section)
        return found

    def input(self, path: Path) -> Path:
        """Record the hash of a file or folder before it is read; its reader reports a missing one."""
        if path.exists():
            self._inputs.append(path)
            self._read[str(path)] = _digest(path)
        return path

    def output(self, path: Path) -> Path:
        """Record an output before it is written."""
        self._outputs.add(path)
        return path

    def write(self, path: Path, data: bytes) -> None:
        """Write an output on rank 0."""
        if self.main:
            write_whole(self.output(path), data)

    def write_json(self, path: Path, values: dict[str, Any]) -> None:
        """Write an output as JSON on rank 0."""
        if self.main:
            write_json(self.output(path), values)

    def fingerprint(self, *facts: object) -> str:
        """Hash the code, params and inputs of this run, and further JSON-compatible facts."""
        return hashlib.sha256(json.dumps([self._code(CODE), self._read, facts], sort_keys=True).encode()).hexdigest()

    def changes(self) -> list[str]:
        """List the code, params and inputs that have changed since they were read."""
        before = self._code(CODE) | self._read
        now: dict[str, Any] = self._code(hash_code())
        now |= {str(path): _digest(path) for path in self._inputs}
        for model, section in self._params:
            try:
                now |= _flat(load_params(model, section), section)
            except UserError:  # invalid while being edited: all its values count as changed
                continue
        return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))

    def _code(self, hashes: dict[str, str]) -> dict[str, str]:
        """Select the files that dvc.yaml lists as deps of the stage."""
        deps = tuple(f"{dep}/" for dep in read_yaml(Path("dvc.yaml"))["stages"][self._stage]["deps"])
        return {path: digest for path, digest in hashes.items() if f"{path}/".startswith(deps)}

    def __enter__(self) -> Self:
        if self.main:
            LOCKS.mkdir(exist_ok=True)
            try:
                self._lock.acquire(timeout=PATIENCE)
            except Timeout:
                raise UserError(f"{self.name}: another run holds the lock; wait for it, or end it") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            if kind is None and (changed := self.changes()):
                for path in self._outputs:
                    path.unlink(missing_ok=True)
                names = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if changed[5:] else "")
                raise UserError(
                    f"{self.name}: outputs removed, because files or params changed while it ran: {names}; run it again"
                )
        finally:
            self._lock.release()


def run_stage(name: str, main: Callable[[Stage], None], items: Sequence[str] = (), argument: str = "") -> None:
    """Run a stage as a command line; `console.run` handles errors.

    Args:
        items: the items of its matrix; the command line names one.
        argument: the name, in the usage message, of an item that may be any text.
    """

    def within() -> None:
        given = sys.argv[1:]
        if not (len(given) == 1 if argument else given in ([[item] for item in items] or [[]])):
            usage = f" {argument}" if argument else f" {{{','.join(items)}}}" if items else ""
            raise UserError(f"usage: python -m stages.{name}{usage}")
        with Stage(name, "".join(given)) as stage:
            main(stage)

    run(within)


def _digest(path: Path) -> str:
    """Hash the content of a file, or the names, sizes and times of the files in a folder."""
    if path.is_file():
        return sha256(path)
    found = [(str(each), each.lstat()) for each in sorted(path.rglob("*"))]
    return hashlib.sha256(repr([(name, at.st_size, at.st_mtime_ns) for name, at in found]).encode()).hexdigest()


def _flat(values: BaseModel, prefix: str) -> dict[str, Any]:
    """Return the values of a params model by dotted name."""
    found: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}" if name else key, inner)
        else:
            found[name] = value

    add(prefix, values.model_dump(mode="json"))
    return found
