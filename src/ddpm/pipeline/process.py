"""The process at hand: its signals, its parent, its end, and the code that it runs.

Standard library only: it comes before all other imports, which take seconds.

Environment:
    DDPM_PARENT  the process that started this stage, which an orphan cannot know; dvc.yaml sets it.
"""

import atexit
import ctypes
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from importlib.abc import PathEntryFinder
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType

ROOT = Path(os.path.abspath(__file__)).parents[3]  # dvc.yaml stands there
FOLDERS = (ROOT / "src/ddpm", ROOT / "stages")
CODE: dict[Path, str] = {}  # the sha256 of the source of every file of library and stages that this process runs
LAST: list[Callable[[], str]] = []  # what a stage looks at when all else has ended; each returns an error, or nothing


def begin_stage() -> None:
    """What comes first in a stage: it ends with its parent, and Ctrl-C ends it with one line."""
    end_with_parent()
    parent = os.environ.pop("DDPM_PARENT", "")  # processes of its own have it for a parent
    if parent.isdecimal() and int(parent) != os.getppid():
        os._exit(1)
    arm()
    atexit.register(_leave)  # the first to be registered is the last to be called


def watch_code() -> None:
    """From now on, files of library and stages are compiled as they are, and their hashes are in CODE."""
    make = FileFinder.path_hook((_Source, [".py"]))

    def hook(folder: str) -> PathEntryFinder:
        if not any(Path(os.path.abspath(folder)).is_relative_to(each) for each in FOLDERS):
            raise ImportError
        return make(folder)

    sys.path_hooks.insert(0, hook)
    for folder in [*sys.path_importer_cache]:
        if any(Path(os.path.abspath(folder)).is_relative_to(each) for each in FOLDERS):
            del sys.path_importer_cache[folder]
    for path in (Path(__file__), ROOT / "stages/__init__.py"):  # came before
        CODE[Path(os.path.abspath(path))] = sha256(path)


class _Source(SourceFileLoader):
    """Without Python's cache of compiled files, which tells an edit by whole seconds and the file's size alone."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        if source:
            CODE[Path(os.path.abspath(self.path))] = hashlib.sha256(source).hexdigest()
        return compile(source, self.path, "exec", dont_inherit=True)  # type: ignore[no-any-return]


def arm() -> None:
    """Let Ctrl-C end this process with one line, and make output safe for any terminal, or none."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get what is printed
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None or sys.stderr is None:
        sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, _interrupted)


def end_with_parent() -> None:
    """Let the death of the parent process send SIGTERM to this one, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _interrupted(_number: int, _frame: object) -> None:
    """End at once: an exception could come in the middle of an import, and be swallowed or shown with a traceback."""
    if os.environ.get("RANK", "0") == "0":  # of the processes that torch's launcher has started, if it has
        os.write(2, b"\ninterrupted\n")
    os._exit(1)


def _leave() -> None:
    """Look a last time, and end: DVC hashes what a stage has read as soon as the stage is gone."""
    if not LAST:
        return
    errors = [error for look in LAST if (error := look())]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1 if errors else 0)
