"""Run a stage of the pipeline under a lock, and remove its outputs if code, params or inputs changed meanwhile.

DVC hashes code, params and inputs only after a stage has ended. An edit during the run would make DVC record outputs
for inputs that the stage never read. So a stage hashes them itself, before and after.
"""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel

from exact_stages.console import UserError, run
from exact_stages.files import sha256, write_json, write_whole
from exact_stages.params import load_params, read_yaml
from exact_stages.provenance import beside, code_of, flat, packages, params_of

LOCKS = Path(".resume")  # of this workspace; a temporary copy has its own
PATIENCE = 10  # seconds; after DVC is killed, a stage may still be saving
CODE: dict[str, str] = {}  # sha256 of the code of all stages, hashed before it is imported

S = TypeVar("S", bound=BaseModel)


class Role(NamedTuple):
    """What one of several processes does for its stage.

    writes: it writes the outputs. leads: it hashes the inputs and tells errors, for all processes of its machine.
    """

    writes: bool = True
    leads: bool = True


def begin(parent: int | None = None) -> None:
    """Prepare for a stage: hash the code of all, and end this process when the process `parent` ends.

    Call this in stages/__init__.py, before the imports of the stage: code that is edited meanwhile would be hashed, but
    not run.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports prints no traceback
    if Path("dvc.yaml").exists():  # elsewhere there is no stage to run, as its Stage says
        run(lambda: CODE.update(hash_code()))
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def hash_code() -> dict[str, str]:
    """Return the sha256 of each Python file that is a dep of a stage in dvc.yaml, or in a folder that is one.

    Hidden files are left out: while it edits loop.py, Emacs keeps a link .#loop.py that leads nowhere.
    """
    paths = {Path(dep) for stage in read_yaml(Path("dvc.yaml"))["stages"].values() for dep in stage.get("deps", ())}
    files = [path for path in paths if path.suffix == ".py" and path.is_file()]
    files += [file for path in paths if path.is_dir() for file in path.rglob("[!.]*.py")]
    return {path.as_posix(): sha256(path) for path in sorted(files)}


class Stage:
    """One run of a stage, as a context manager that records what the stage reads and writes.

    Only a process whose role is to write takes the lock and writes.

    Raises:
        UserError: on entering, another run of the stage holds the lock; on leaving, code, params or inputs have
            changed, and the outputs are removed.
    """

    def __init__(self, name: str, item: str = "", role: Role = Role()) -> None:  # noqa: B008
        """Name the stage and, if it has a matrix in dvc.yaml, the item of this run."""
        self.name = f"{name}-{item}" if item else name
        self.item = item
        self.writes = role.writes
        self._leads = role.leads
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
        if self._leads and path.exists() and path not in self._inputs:
            self._inputs.append(path)
            self._read[str(path)] = _digest(path)
        return path

    def output(self, path: Path) -> Path:
        """Record an output before it is written."""
        self._outputs.add(path)
        return path

    def write(self, path: Path, data: bytes) -> None:
        """Write an output, if this process writes."""
        if self.writes:
            write_whole(self.output(path), data)

    def write_json(self, path: Path, values: dict[str, Any]) -> None:
        """Write an output as JSON, if this process writes."""
        if self.writes:
            write_json(self.output(path), values)

    def record(self, path: Path, read: Iterable[Path] = (), origins: Iterable[Path] = (), **facts: Any) -> None:
        """Write the provenance of an output, if this process writes; no time, commit or place of the run is in it.

        Args:
            read: the files that were read of an input folder.
            origins: inputs that have a provenance.
            facts: further JSON-compatible facts, such as the environment.
        """
        if not self.writes:
            return
        inputs = {file.as_posix(): sha256(file) for file in read}
        inputs |= {file.as_posix(): self._read[str(file)] for file in self._inputs if file.is_file()}
        made = {
            "file": path.as_posix(),
            "sha256": sha256(path),
            "stage": f"{self._stage}@{self.item}" if self.item else self._stage,
            "code": code_of(self._stage, CODE),
            "params": params_of(self._stage),
            "packages": packages(),
            "inputs": inputs,
            "origins": [beside(each).as_posix() for each in origins],
        }
        self.write_json(beside(path), made | facts)

    def fingerprint(self, *facts: object) -> str:
        """Hash the code, params and inputs of this run, and further JSON-compatible facts; "" if another one leads."""
        if not self._leads:
            return ""
        return hashlib.sha256(
            json.dumps([code_of(self._stage, CODE), self._read, facts], sort_keys=True).encode()
        ).hexdigest()

    def changes(self) -> list[str]:
        """List the code, params and inputs that have changed since they were read."""
        before = code_of(self._stage, CODE) | self._read
        now: dict[str, Any] = code_of(self._stage, hash_code())
        now |= {str(path): _digest(path) for path in self._inputs}
        for model, section in self._params:
            try:
                now |= _flat(load_params(model, section), section)
            except UserError:  # invalid while being edited: all its values count as changed
                continue
        return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))

    def __enter__(self) -> Self:
        if self.writes:
            LOCKS.mkdir(exist_ok=True)
            try:
                self._lock.acquire(timeout=PATIENCE)
            except Timeout:
                raise UserError(f"{self.name}: another run holds the lock; wait for it, or end it") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            # Another process would end at once, and its launcher would end the one that explains.
            if kind is None and self._leads and (changed := self.changes()):
                for path in self._outputs:
                    path.unlink(missing_ok=True)
                names = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if changed[5:] else "")
                raise UserError(
                    f"{self.name}: outputs removed, because files or params changed while it ran: {names}; run it again"
                )
        finally:
            self._lock.release()


def run_stage(
    name: str,
    main: Callable[[Stage], None],
    items: Sequence[str] = (),
    argument: str = "",
    role: Role = Role(),  # noqa: B008
) -> None:
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
        with Stage(name, "".join(given), role) as stage:
            main(stage)

    run(within, role.leads)


def _end_with(ancestor: int) -> None:
    """Send SIGTERM to this process once `ancestor` has ended; a launcher in between may outlive it."""
    while ancestor in [each.pid for each in psutil.Process().parents()]:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _digest(path: Path) -> str:
    """Hash the content of a file, or the names, sizes and times of the files in a folder."""
    if path.is_file():
        return sha256(path)
    found = [(str(each), each.lstat()) for each in sorted(path.rglob("*"))]
    return hashlib.sha256(repr([(name, at.st_size, at.st_mtime_ns) for name, at in found]).encode()).hexdigest()


def _flat(values: BaseModel, prefix: str) -> dict[str, Any]:
    """Return the values of a params model by dotted name."""
    return flat(values.model_dump(mode="json"), prefix)
