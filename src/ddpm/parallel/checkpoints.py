"""Checkpoints: the private state of a run that was interrupted, by which the next run continues bit for bit.

They live outside the outputs, which DVC deletes before every run, and belong to one fingerprint of everything that
decides the result. With any other fingerprint they are not found.

Environment:
    DVC_ROOT           set by DVC: the repository, also while it works in a temporary copy.
    DDPM_SAVE_SECONDS  seconds between two checkpoints; by default 30.
"""

import hashlib
import io
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from ddpm.compute.environment import number
from ddpm.parallel.world import World
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_whole

KEPT = 4  # of each stage: experiments that may continue later
SHARE = 20  # a checkpoint that takes a second is followed by at least so many seconds of work


class Stateful(Protocol):
    """What a checkpoint holds: tensors, numbers, strings, lists and dictionaries."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during the run."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from where another object with the same arguments was."""


class Checkpoints:
    """The checkpoint of one run, as a context; on entering, the parts continue from the last one.

    Inside the block Ctrl-C and SIGTERM end the run at the next `tick`, when its state is saved; a second Ctrl-C ends it
    at once. Rank 0 alone reads, writes and decides; the other processes follow.
    """

    def __init__(self, name: str, key: str, world: World, **parts: Stateful) -> None:
        """Choose the file.

        Args:
            name: of the stage.
            key: a hash of everything that decides the result, see `Stage.fingerprint`.
            parts: what the checkpoint holds.

        Raises:
            UserError: DDPM_SAVE_SECONDS is no number; or processes of several machines have read different things.
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
        for each, handler in self._handlers.items():
            signal.signal(each, handler)

    def tick(self) -> None:
        """Save when it is due; call it wherever the parts are whole.

        Raises:
            UserError: someone has asked the run to end; the state is saved.
        """
        if self.main and (self._stop or time.monotonic() >= self._due):
            self.save()
        if self._stop:
            raise UserError(f"{self.name}: interrupted; the next run continues from here")

    def save(self) -> None:
        """Replace the checkpoint.

        Raises:
            OSError: the disk is full, ...; the last checkpoint is untouched.
        """
        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"outputs": self._outputs, **{name: each.state_dict() for name, each in self.parts.items()}}, buffer)
        write_whole(self.path, buffer.getvalue())
        for old in sorted(self.path.parent.glob(f"{self.name}-*.pt"), key=_modified)[:-KEPT]:
            old.unlink(missing_ok=True)
        self._due = time.monotonic() + max(self._seconds, SHARE * (time.monotonic() - began))

    def finish(self, outputs: Sequence[Path]) -> None:
        """Keep the last state until dvc.lock names the outputs, for DVC may be killed before it does."""
        if self.main:
            self._outputs = [_md5(path) for path in outputs]
            self.save()

    def drop(self) -> None:
        """Forget the run: its result is kept elsewhere."""
        self.path.unlink(missing_ok=True)

    def _load(self) -> dict[str, Any] | None:
        """Read the states of the parts; None where there are none, or where DVC has recorded the result."""
        if not self.path.is_file():
            return None
        try:
            states: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            outputs = states.pop("outputs")
        except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError):
            print(f"{self.path}: damaged, so {self.name} begins anew", file=sys.stderr)
            return None
        lock = Path("dvc.lock")
        recorded = lock.read_text() if lock.is_file() else ""
        if outputs and all(each in recorded for each in outputs):
            self.drop()  # whoever runs the stage again wants it run
            return None
        return states

    def _asked(self, signum: int, _frame: object) -> None:
        """End at the next tick; off rank 0, keep working until rank 0 has ended."""
        self._stop = self.main
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL if self.main else signal.SIG_IGN)


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
