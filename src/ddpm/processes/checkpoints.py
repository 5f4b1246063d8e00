"""Save checkpoints, so that an interrupted run continues bit for bit.

A checkpoint serves only a run with the same code, params, inputs and environment; see `exact_stages.files.SavedState`.

Environment:
    DDPM_SAVE_SECONDS  seconds between two checkpoints; by default 30.
"""

import io
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from ddpm.processes.device import number
from ddpm.processes.workers import run_in_processes
from ddpm.processes.world import World
from exact_stages.console import UserError, progress
from exact_stages.files import SavedState

LIVE_SECONDS = 5
WORK_PER_SAVE = 20  # the least ratio of working time to saving time


class Stateful(Protocol):
    """An object with a state of tensors, numbers, strings, lists and dictionaries."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state that changes during the run."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of an object that was made with the same arguments."""


class Work(Protocol):
    """Work of `total_steps` steps of `batch_size` images, of which `step` are done.

    shards: how many processes can share a step. length: the numbers of the result of a shard.
    """

    batch_size: int
    total_steps: int
    shards: int
    length: int

    @property
    def step(self) -> int:
        """Return the number of steps done."""

    def run(self, world: World) -> Iterator[float | None]:
        """Do the remaining steps, in all processes of a world at once.

        Yield a mean loss, or None, wherever the state is consistent.
        """


class Checkpoints:
    """The checkpoint of one run, as a context manager; entering it restores the last state.

    Inside the block, Ctrl-C and SIGTERM end the run at the next `save_if_due`, after saving. A second Ctrl-C ends it at
    once. Only rank 0 reads, writes and decides; the other processes follow.
    """

    def __init__(self, name: str, key: str, world: World, **objects: Stateful) -> None:
        """Choose the checkpoint file.

        Args:
            name: the name of the stage.
            key: a hash of everything that determines the result, see `Stage.fingerprint`.
            objects: those to save and restore.

        Raises:
            UserError: DDPM_SAVE_SECONDS is not a valid number.
        """
        self.name = name
        self.world = world
        self.objects = objects
        self.saved = SavedState(name, key)
        self._stop = False
        self._seconds = number("DDPM_SAVE_SECONDS", 30.0, 0.0, 1e6, "seconds")
        self._due = time.monotonic() + self._seconds

    @property
    def main(self) -> bool:
        """Tell whether this process decides."""
        return self.world.rank == 0

    def __enter__(self) -> Self:
        self._handlers = {each: signal.signal(each, self._asked) for each in (signal.SIGINT, signal.SIGTERM)}
        states = self.world.broadcast(self._load)
        for name, state in (states or {}).items():
            self.objects[name].load_state_dict(state)
        if states and self.main:
            print(f"{self.name}: continues where it was interrupted", file=sys.stderr)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if not self._stop:  # else the run ends, and the SIGTERM that follows DVC's end would cut off its last message
            for each, handler in self._handlers.items():
                signal.signal(each, handler)

    def run(self, label: str, work: Work, live: Callable[[], None] | None = None) -> None:
        """Run `work` to its end, with a progress bar called `label`, and save checkpoints when they are due.

        Args:
            live: called after a loss every LIVE_SECONDS, to show it while the work goes on.

        Raises:
            UserError: a signal asked the run to end; its state is saved.
        """
        size = work.batch_size
        options: dict[str, Any] = {"desc": label, "total": work.total_steps * size, "unit": "img", "unit_scale": True}

        def steps(world: World) -> None:
            shown = time.monotonic()
            with progress(initial=work.step * size, disable=not self.main, **options) as bar:
                for loss in work.run(world):
                    if loss is not None:
                        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                        if live and self.main and time.monotonic() - shown > LIVE_SECONDS:
                            live()
                            shown = time.monotonic()
                    bar.update(work.step * size - bar.n)
                    self.save_if_due()

        self.run_in_processes(work.shards, steps, work.length)

    def run_in_processes(self, shards: int, work: Callable[[World], None], length: int = 0) -> None:
        """Do `work`, which calls `save_if_due`, in several processes; see `workers.run_in_processes`."""

        def within(world: World) -> None:
            self.world, outer = world, self.world
            work(world)
            self.world = outer  # for the next work

        run_in_processes(self.world, shards, within, length)

    def save_if_due(self) -> None:
        """Save if a checkpoint is due; call this between steps, where the state is consistent.

        Raises:
            UserError: a signal asked the run to end; its state is saved.
        """
        if self._stop or time.monotonic() >= self._due:
            self.save()
        if self._stop:
            raise UserError(f"{self.name}: interrupted; run it again to continue from here")

    def save(self, outputs: Sequence[Path] = ()) -> None:
        """Replace the checkpoint, if this process decides.

        Args:
            outputs: those of a run that has ended, in case DVC is killed before it records them.
        """
        if not self.main:
            return
        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save({name: each.state_dict() for name, each in self.objects.items()}, buffer)
        self.saved.write(buffer.getvalue(), outputs)
        self._due = time.monotonic() + max(self._seconds, WORK_PER_SAVE * (time.monotonic() - began))

    def _load(self) -> dict[str, Any] | None:
        """Return the saved states, or None if there are none to continue from."""
        state = self.saved.read()
        return None if state is None else torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)

    def _asked(self, signum: int, _frame: object) -> None:
        """End at the next `save_if_due`; ranks other than 0 work until rank 0 has ended."""
        self._stop = self.main
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL if self.main else signal.SIG_IGN)
