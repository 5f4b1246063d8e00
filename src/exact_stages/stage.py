"""Run a stage of the pipeline under a lock, and remove its outputs if code, params or inputs changed meanwhile.

DVC hashes deps and params only after a stage has ended. An edit during the run would make DVC record outputs for inputs
that the stage never read. So a stage hashes them itself, before and after.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from os.path import abspath, isfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel

from exact_stages.code import FOLDER, changed, code_of, depends, hashes, lines_of, packages, path_of
from exact_stages.console import UserError, run, some
from exact_stages.declared import Declared
from exact_stages.files import SavedState, sha256, write_json, write_whole
from exact_stages.params import load_params
from exact_stages.provenance import beside, flat

LOCKS = Path(".resume")  # of this workspace; a temporary copy has its own
PATIENCE = 10  # seconds; after DVC is killed, a stage may still be saving
Hashes = dict[str, dict[str, str]]  # by dep, and by file
S = TypeVar("S", bound=BaseModel)


class Begun(NamedTuple):
    """What a process finds before it imports a stage: all stages, the deps that none makes, and the bytes of all code.

    deps: their hashes. code: a hash of the bytes of each file that code/ names.
    """

    declared: Declared
    deps: Hashes
    code: dict[str, str]


class Role(NamedTuple):
    """What one of several processes does for its stage.

    writes: it writes the outputs. leads: it hashes the inputs and tells errors, for all processes of its machine.
    """

    writes: bool = True
    leads: bool = True


def begin(parent: int | None = None, leads: bool = True) -> None:
    """Prepare for a stage: hash code and deps of all if this process leads, and end when the process `parent` ends.

    Call this in stages/__init__.py, before the imports of the stage: code that is edited meanwhile would be hashed, but
    not run.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports prints no traceback
    if leads and Path("dvc.yaml").exists():  # elsewhere there is no stage to run, as its Stage says
        run(lambda: begun(Path.cwd()) and None)
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


@cache
def begun(_folder: Path) -> Begun:
    """Resolve the stages of the working folder, and hash their code, and their deps that no stage makes, once."""
    code = {name for path in FOLDER.glob("*.txt") for name in lines_of(path.read_text(encoding="utf-8"))}
    found = Begun(Declared(), {}, {name: sha256(Path(name)) for name in code if isfile(name)})
    for name in found.declared.groups:
        with contextlib.suppress(UserError):  # a dep that the stage itself refuses
            new = found.declared.deps(name) - found.deps.keys() - found.declared.outs
            found.deps.update({dep: found.declared.hashed(dep) for dep in new})
    return found


class _Began(NamedTuple):
    declared: Declared
    code: dict[str, str]
    deps: Hashes
    params: dict[str, Any]


class Stage:
    """One run of a stage, as a context manager that records what the stage reads and writes.

    Only a process whose role is to write takes the lock and writes.

    Raises:
        UserError: on entering, another run of the stage holds the lock, or its code is not that which the stage `code`
            saw; on leaving, code, deps, params or inputs have changed, and the outputs are removed.
    """

    def __init__(self, name: str, item: str = "", role: Role = Role()) -> None:  # noqa: B008
        """Name the stage and, if it has a matrix in dvc.yaml, the item of this run."""
        self.name = f"{name}-{item}" if item else name
        self.item = item
        self.writes = role.writes
        self._leads = role.leads
        self._stage = f"{name}@{item}" if item else name
        self._params: list[tuple[type[BaseModel], str]] = []
        self._inputs: list[Path] = []
        self._outputs: set[Path] = set()
        self._read: dict[str, Any] = {}  # hashes of inputs and values of params, by name
        self._key = ""  # of the state of this run
        self._lock = FileLock(LOCKS / f"{self.name}.lock")

    def params(self, model: type[S], section: str = "") -> S:
        """Load params, see `load_params`, and record their values."""
        found = load_params(model, section)
        values = flat(found.model_dump(mode="json"), section)
        if "_began" in vars(self) and (undeclared := values.keys() - self._began.params.keys()):
            told = self._began.declared.told(self._stage)
            raise UserError(f"{told}: add to its params, which it reads: {some(sorted(undeclared))}")
        self._params.append((model, section))
        self._read |= values
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

    def record(
        self,
        path: Path,
        read: Iterable[Path] = (),
        origins: Iterable[Path] = (),
        unread: Iterable[str] = (),
        **facts: Any,
    ) -> None:
        """Write the provenance of an output, if this process writes; no time, commit or place of the run is in it.

        Args:
            read: the files that were read of an input folder.
            origins: inputs that have a provenance.
            unread: deps that this run did not read.
            facts: further JSON-compatible facts, such as the environment.
        """
        if not self.writes:
            return
        inputs = {file.as_posix(): sha256(file) for file in read}
        inputs |= {file.as_posix(): self._read[str(file)] for file in self._inputs if file.is_file()}
        deps = self._unread(self._began.deps).keys() - {str(path_of(self._stage)), *unread}
        inputs |= {file: sha256(Path(file)) for file in sorted(deps) if isfile(file)}
        made = {
            "version": 2,
            "file": path.as_posix(),
            "sha256": sha256(path),
            "stage": self._stage,
            "code": hashes(self._began.code),
            "params": self._began.declared.params(self._stage),
            "packages": packages(),
            "inputs": inputs,
            "origins": [beside(each).as_posix() for each in origins],
        }
        self.write_json(beside(path), made | facts)

    def fingerprint(self, *facts: object) -> str:
        """Hash command, code, deps, params and inputs, and further JSON-compatible facts; "" if another process leads.

        Raises:
            UserError: one of them has changed since the stage began.
        """
        if not self._leads:
            return ""
        if changed := self.changes(inputs=False):
            raise UserError(f"{self.name}: changed while it began: {some(changed)}; run it again")
        began = self._began
        commands = [stage.cmd for stage in began.declared.items(self._stage)]
        made = [commands, began.code, self._unread(began.deps), began.params | self._read, facts]
        self._key = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
        return self._key

    def changes(self, inputs: bool = True) -> list[str]:
        """List the code, deps, params and, if wanted, inputs that have changed since they were read."""
        declared, code, deps, params = self._began
        before = code | self._unread(deps) | params | self._read
        now: dict[str, Any] = self._unread({dep: declared.hashed(dep) for dep in deps})
        try:
            now |= code_of(declared, self._stage).lines
        except UserError as error:  # a file is no valid Python while being edited
            now |= code | {str(error): ""}
        now |= {str(path): _digest(path) if inputs else before[str(path)] for path in self._inputs}
        with contextlib.suppress(UserError):  # invalid while being edited: all values count as changed
            now |= declared.params(self._stage)
        for model, section in self._params:
            with contextlib.suppress(UserError):
                now |= flat(load_params(model, section).model_dump(mode="json"), section)
        return sorted(name for name in before.keys() | now.keys() if repr(before.get(name)) != repr(now.get(name)))

    @cached_property
    def _began(self) -> "_Began":
        """What is declared, and this stage's code, deps and params, as they were before its imports."""
        declared, known, of_bytes = begun(Path.cwd())
        deps = {dep: known[dep] if dep in known else declared.hashed(dep) for dep in declared.deps(self._stage)}
        if not depends(declared, self._stage):
            fix = f"add {path_of(self._stage)} to its deps, and a stage `code` that writes it"
            raise UserError(f"{declared.told(self._stage)}: {fix}")
        if not (path := path_of(self._stage)).is_file():
            raise UserError(f"{path}: no such file; run `dvc repro`, which writes it")
        code = code_of(declared, self._stage).lines
        if late := changed(lines_of(path.read_text(encoding="utf-8")), code):
            raise UserError(f"{some(late)} changed since the stage `code` ran; run `dvc repro`")
        if late := [file for file in code if isfile(file) and of_bytes.get(file) != sha256(Path(file))]:
            raise UserError(f"{self.name}: changed while it began: {some(late)}; run it again")
        return _Began(declared, code, deps, declared.params(self._stage))

    def _unread(self, deps: Hashes) -> dict[str, str]:
        """Return the hashes of the deps that `input` does not hash."""
        read = tuple(f"{abspath(path)}/" for path in self._inputs)
        found = {file: digest for files in deps.values() for file, digest in files.items()}
        return {file: digest for file, digest in found.items() if not f"{abspath(file)}/".startswith(read)}

    def __enter__(self) -> Self:
        if self._leads:
            _ = self._began  # or dvc.yaml is refused
        run_by_dvc = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
        if run_by_dvc and run_by_dvc.partition("@")[0] != self._stage.partition("@")[0]:
            raise UserError(f"dvc.yaml: {run_by_dvc} runs the script of {self._stage}; give both one name")
        if self.writes:
            LOCKS.mkdir(exist_ok=True)
            try:
                self._lock.acquire(timeout=PATIENCE)
            except Timeout:
                raise UserError(f"{self.name}: another run holds the lock; wait for it, or end it") from None
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        succeeded = error is None or (isinstance(error, SystemExit) and not error.code)
        try:
            # Another process would end at once, and its launcher would end the one that explains.
            if succeeded and self._leads and (changed := self.changes()):
                for path in [*self._outputs, SavedState(self.name, self._key).path]:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
                reason = f"because files or params changed while it ran: {some(changed)}"
                raise UserError(f"{self.name}: outputs removed, {reason}; run it again")
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
    """Hash a file by content, or a folder as a dep."""
    if path.is_file():
        return sha256(path)
    return hashlib.sha256(json.dumps(begun(Path.cwd()).declared.hashed(str(path))).encode()).hexdigest()
