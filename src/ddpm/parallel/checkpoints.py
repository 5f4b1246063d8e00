"""Save checkpoints, so that an interrupted run continues bit for bit.

Checkpoints lie in .resume/, not among the outputs, which DVC deletes before every run. Their names contain a hash of
everything that determines the result, so a run with other code, params or inputs starts from the beginning.

Environment:
    DVC_ROOT           the repository, even while DVC runs in a temporary copy; set by DVC.
    DDPM_SAVE_SECONDS  seconds between two checkpoints; by default 30.
"""

import hashlib
import io
import os
import signal
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from ddpm.compute.environment import number
from ddpm.parallel.world import World
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_whole

KEPT = 4  # checkpoints of each stage, so that several experiments can continue
WORK_PER_SAVE = 20  # the least ratio of working time to saving time


class Stateful(Protocol):
    """An object with a state of tensors, numbers, strings, lists and dictionaries."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state that changes during the run."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of an object that was made with the same arguments."""


class Checkpoints:
    """The checkpoint of one run, as a context manager; entering it restores the last state.

    Inside the block, Ctrl-C and SIGTERM end the run at the next `tick`, after saving. A second Ctrl-C ends it at once.
    Only rank 0 reads, writes and decides; the other processes follow.
    """

    def __init__(self, name: str, key: str, world: World, **parts: Stateful) -> None:
        """Choose the checkpoint file.

        Args:
            name: the name of the stage.
            key: a hash of everything that determines the result, see `Stage.fingerprint`.
            parts: the objects to save and restore.

        Raises:
            UserError: DDPM_SAVE_SECONDS is not a valid number, or processes have different keys.
        """
        world.agree(key)
        self.name = name
        self.world = world
        self.main = world.rank == 0
        self.parts = parts
        self.path = Path(os.environ.get("DVC_ROOT", "."), ".resume", f"{name}-{key[:16]}.pt")
        self._stop = False
        self._outputs: list[str] = []
        self._seconds = number("DDPM_SAVE_SECONDS", 30.0, 0.0, 1e6, "seconds")
        self._due = time.monotonic() + self._seconds

    def __enter__(self) -> Self:
        self._handlers = {each: signal.signal(each, self._asked) for each in (signal.SIGINT, signal.SIGTERM)}
        states = self.world.broadcast(self._load() if self.main else None)
        for name, state in (states or {}).items():
            self.parts[name].load_state_dict(state)
        if states and self.main:
            print(f"{self.name}: continues where it was interrupted", file=sys.stderr)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if not self._stop:  # else the run ends, and the SIGTERM that follows DVC's end would cut off its last message
            for each, handler in self._handlers.items():
                signal.signal(each, handler)

    def tick(self) -> None:
        """Save if a checkpoint is due; call this between steps, where the state is consistent.

        Raises:
            UserError: a signal asked the run to end; its state is saved.
        """
        if self.main and (self._stop or time.monotonic() >= self._due):
            self.save()
        if self._stop:
            raise UserError(f"{self.name}: interrupted; run it again to continue from here")

    def save(self) -> None:
        """Replace the checkpoint.

        Raises:
            OSError: the disk is full, ...; the last checkpoint is unchanged.
        """
        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"outputs": self._outputs, **{name: each.state_dict() for name, each in self.parts.items()}}, buffer)
        write_whole(self.path, buffer.getvalue())
        for old in sorted(self.path.parent.glob(f"{self.name}-*.pt"), key=_modified)[:-KEPT]:
            old.unlink(missing_ok=True)
        self._due = time.monotonic() + max(self._seconds, WORK_PER_SAVE * (time.monotonic() - began))

    def finish(self, outputs: Sequence[Path]) -> None:
        """Save the final state and the hashes of the outputs, in case DVC is killed before it records them."""
        if self.main:
            self._outputs = [_md5(path) for path in outputs]
            self.save()

    def _load(self) -> dict[str, Any] | None:
        """Return the saved states, or None if there are none or DVC has recorded the result."""
        if not self.path.is_file():
            return None
        try:
            if broken := zipfile.ZipFile(self.path).testzip():  # torch.load compares no checksums
                raise ValueError(f"{broken}: not what its checksum says")
            states: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            outputs = states.pop("outputs")
        except Exception:  # torch.load and zipfile raise nearly anything when bytes are wrong
            print(f"{self.path}: damaged; {self.name} starts from the beginning", file=sys.stderr)
            return None
        lock = Path("dvc.lock")
        recorded = lock.read_text() if lock.is_file() else ""
        if outputs and all(each in recorded for each in outputs):
            self.path.unlink(missing_ok=True)  # DVC runs a recorded stage only when the user forces it: start again
            return None
        return states

    def _asked(self, signum: int, _frame: object) -> None:
        """End at the next tick; ranks other than 0 work until rank 0 has ended."""
        self._stop = self.main
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL if self.main else signal.SIG_IGN)


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
