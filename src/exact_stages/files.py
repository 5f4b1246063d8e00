"""Read YAML, write files whole or not at all, hash them, and keep the state of an interrupted run."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from exact_stages.console import UserError, shown

KEPT = 4  # states of each stage, so that several experiments can continue


def read_yaml(path: Path) -> Any:
    """Load YAML 1.2 with DVC's parser: 1e-05 is a number and duplicate keys are errors.

    Raises:
        UserError: the file is missing, not UTF-8, not valid YAML, or has a merge conflict.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this at the top of the repository") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    if conflict := re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        fix = "keep one side and delete the lines with <<<<<<<, ======= and >>>>>>>"
        raise UserError(f"{path}: line {line}: a merge conflict; {fix}")
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{path}: not valid YAML: line {mark.line + 1}: {error.problem or error.context}") from None
    except (YAMLError, ValueError) as error:  # a forbidden character, an impossible date
        raise UserError(f"{path}: not valid YAML: {shown(str(error))}") from None


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write `data`, bytes or parts, to a temporary file, then move it to `path`; readers see the old file or the new.

    The temporary name is fixed, so the next attempt replaces the leftovers of a killed one, and waits for one that
    writes. A device or pipe is written to directly. A link is followed, unless it leads to a read-only file, as links
    into DVC's cache do: it is replaced.

    Raises:
        OSError: the disk is full, the folder is read-only, ...; the file at `path` is unchanged.
    """
    target = Path(os.path.realpath(path))
    if path.is_symlink() and target.exists() and not target.stat().st_mode & 0o222:
        target = path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as special:
                special.writelines([data] if isinstance(data, bytes) else data)
            return
        with _alone(temporary) as file:
            try:
                for part in [data] if isinstance(data, bytes) else data:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        error.filename = str(path)  # a full disk reports no path
        raise


def _alone(path: Path) -> BinaryIO:
    """Open an empty file that no other process writes, once those that do have moved theirs away."""
    while True:
        file = path.open("ab")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                file.truncate(0)
                return file
        file.close()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write `values` as indented JSON with a final newline; raise ValueError for NaN and infinities."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    return _hashed(path, hashlib.sha256)


def md5(path: Path) -> str:
    """Return the md5 of a file, by which DVC records it."""
    return _hashed(path, partial(hashlib.md5, usedforsecurity=False))


def _hashed(path: Path, kind: Any) -> str:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOATIME)  # by its time of access, `trace` knows what a stage reads
    except PermissionError:  # the file is of another user
        opened = os.open(path, os.O_RDONLY)
    with open(opened, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


class SavedState:
    """The state of one unfinished run, as bytes in .resume/, from which the same run can continue.

    It lies not among the outputs, which DVC deletes before every run, but in the repository, even while DVC runs in a
    temporary copy: DVC sets DVC_ROOT.
    """

    def __init__(self, name: str, key: str) -> None:
        """Choose the file by the name of the stage, and a hash of all that determines the result: Stage.fingerprint."""
        self.name = name
        self.path = Path(os.environ.get("DVC_ROOT", "."), ".resume", f"{name}-{key[:16]}.state")

    def write(self, state: bytes, outputs: Sequence[Path] = ()) -> None:
        """Replace the state, and remove the oldest ones of the stage.

        Args:
            outputs: the files that a run has written that has ended, in case it is killed before DVC records them.

        Raises:
            OSError: the disk is full, ...; the last state is unchanged.
        """
        head = json.dumps([md5(path) for path in outputs]).encode() + b"\n"
        write_whole(self.path, [_digest(head, state), head, state])
        saved = [path for path in self.path.parent.glob("*.state") if path.name.rpartition("-")[0] == self.name]
        with contextlib.suppress(FileNotFoundError):  # another run, which shares the folder, does the same
            for old in sorted(saved, key=lambda path: path.stat().st_mtime)[:-KEPT]:
                old.unlink()

    def read(self) -> bytes | None:
        """Return the state, or None if there is none, it is damaged, or DVC has recorded the outputs of its run."""
        if not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            digest, head, state = file.read(hashlib.sha256().digest_size), file.readline(), file.read()
        if digest != _digest(head, state):
            print(f"{self.path}: damaged; {self.name} starts from the beginning", file=sys.stderr)
            return None
        locks = [each for each in (Path("dvc.lock"), *Path().glob("*/dvc.lock")) if each.is_file()]
        outputs, recorded = json.loads(head), "".join(each.read_text() for each in locks)
        if outputs and all(each in recorded for each in outputs):
            self.path.unlink(missing_ok=True)  # DVC runs a recorded stage only when the user forces it: start again
            return None
        return state


def _digest(head: bytes, state: bytes) -> bytes:
    found = hashlib.sha256(head)
    found.update(state)
    return found.digest()
