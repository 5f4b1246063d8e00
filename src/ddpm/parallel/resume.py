"""Work that was cut off goes on: the state of a stage, on disk, outside the outputs that DVC deletes before every run.

A state belongs to one fingerprint, of everything that decides the stage's result; with any other it is not found. It is
written whole, in two generations, and one process at a time owns it.

Environment:
    DVC_ROOT           set by DVC, the repository even where it works in a temporary copy; states live below it.
    DDPM_SAVE_SECONDS  seconds of work that may be lost; by default 30.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ddpm.compute.environment import number
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from ddpm.pipeline.lock import take_lock, try_lock

FOLDER = ".resume"
OTHERS_KEPT = 3  # states of other fingerprints: experiments that may go on later


class Saved(NamedTuple):
    """What a state holds: tensors, and JSON-compatible facts."""

    arrays: dict[str, Tensor]
    facts: dict[str, Any]


class State:
    """The state of one run of one stage. It is this process's alone until the process ends, however it ends."""

    def __init__(self, stage: str, key: str) -> None:
        """Take the state of `stage` with the fingerprint `key`, and remove the oldest of the others.

        Raises:
            UserError: another process is at the same work, or DDPM_SAVE_SECONDS is no number.
        """
        self.folder = Path(os.environ.get("DVC_ROOT", "."), FOLDER, f"{stage}-{key[:16]}")
        self.key = key
        self._lock = take_lock(self.folder / "lock", f"{stage}, this very run")
        os.utime(self.folder)
        self._prune(stage)
        self._generation = 0
        self._saved_at = time.monotonic()
        self._seconds = number("DDPM_SAVE_SECONDS", 30.0, 0.0, 1e6, "seconds")

    def load(self) -> Saved | None:
        """The newest whole state, None where there is none, or where DVC has recorded its result.

        Of what a crash left half written, or a disk damaged, the generation before is taken.
        """
        whole = [saved for generation in (0, 1) if (saved := self._read(generation))]
        if not whole:
            return None
        newest = max(whole, key=lambda saved: saved.facts["generation"])
        self._generation = newest.facts["generation"] + 1
        if recorded(newest.facts.get("outputs", [])):
            self.drop()
            return None
        return newest

    def due(self) -> bool:
        """Whether so much work is unsaved that it would hurt."""
        return time.monotonic() - self._saved_at >= self._seconds

    def save(self, arrays: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep a state; the one before stays until the next.

        Raises:
            OSError: the disk is full, ...; what was saved before is untouched.
        """
        facts = {**facts, "generation": self._generation, "key": self.key}
        save_arrays(self._path(self._generation % 2), arrays, {**facts, "sha256": _checksum(arrays, facts)})
        self._generation += 1
        self._saved_at = time.monotonic()

    def finish(self, arrays: dict[str, Tensor], facts: dict[str, Any], outputs: Iterable[Path]) -> None:
        """Keep the last state until DVC has recorded `outputs`, for DVC may be killed before it does."""
        hashes = [hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in outputs]
        self.save(arrays, {**facts, "outputs": hashes})

    def drop(self) -> None:
        """Forget everything."""
        for generation in (0, 1):
            self._path(generation).unlink(missing_ok=True)

    def _path(self, generation: int) -> Path:
        return self.folder / f"{generation}.safetensors"

    def _read(self, generation: int) -> Saved | None:
        try:
            arrays, facts = load_arrays(self._path(generation))
            checksum = facts.pop("sha256")
            if facts["key"] == self.key and checksum == _checksum(arrays, facts):
                return Saved(arrays, facts)
        except (UserError, KeyError):
            pass
        return None

    def _prune(self, stage: str) -> None:
        """Remove all but the newest states of the stage; those at work stay."""
        others = [folder for folder in self.folder.parent.glob(f"{stage}-*") if folder != self.folder]
        for folder in sorted(others, key=lambda folder: folder.stat().st_mtime)[:-OTHERS_KEPT]:
            with contextlib.suppress(OSError), (folder / "lock").open("a") as lock:
                if try_lock(lock):
                    shutil.rmtree(folder, ignore_errors=True)


def recorded(hashes: list[str]) -> bool:
    """Whether dvc.lock names all of these outputs: then DVC has them."""
    lock = Path("dvc.lock")
    return bool(hashes) and lock.exists() and all(each in lock.read_text() for each in hashes)


class Stop:
    """Whether someone has asked the process to end."""

    requested = False


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Inside the block, Ctrl-C and SIGTERM only set `requested`; the death of a stage's parent comes as SIGTERM.

    The block ends when its state is saved; a second Ctrl-C ends it at once. SIGTERM often comes twice, to the process
    group and then by the parent's death.
    """
    stop = Stop()

    def request(number: int, _frame: object) -> None:
        stop.requested = True
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checksum(arrays: dict[str, Tensor], facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(name.encode() + b"\0")
        digest.update(array.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
