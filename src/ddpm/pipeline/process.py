"""The process of a stage: the hash of its code, its end with DVC, and its rank under torchrun.

Imports what loads in milliseconds: `stages/__init__.py` runs it before torch, which takes seconds.

Environment:
    DDPM_PARENT  process id of the DVC that started the stage; dvc.yaml sets it.
"""

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]  # the folder of dvc.yaml
CODE: dict[str, str] = {}  # sha256 of every file of the library and the stages, before the first of them was imported


def begin_stage() -> None:
    """Hash the code before it is imported, and end this process when DVC ends."""
    CODE.update(hash_code())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while torch is imported ends without a traceback
    if parent := os.environ.get("DDPM_PARENT", ""):
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()


def hash_code() -> dict[str, str]:
    """Hash the source files of the library and the stages, by their paths from dvc.yaml's folder.

    Hidden files are left out: while it edits loop.py, Emacs keeps a link .#loop.py that leads nowhere.
    """
    files = [path for folder in ("src/ddpm", "stages") for path in sorted((ROOT / folder).rglob("[!.]*.py"))]
    return {path.relative_to(ROOT).as_posix(): sha256(path) for path in files}


def sha256(path: Path) -> str:
    """Hash the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rank() -> int:
    """Return this process's rank among those that torchrun started, 0 for a single process."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _end_with(ancestor: int) -> None:
    """Send SIGTERM to this process once `ancestor` is no longer above it: DVC was killed, torchrun perhaps not."""
    while ancestor in [each.pid for each in psutil.Process().parents()]:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
