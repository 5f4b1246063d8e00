"""Hash the code of a stage before it is imported, end the stage with DVC, and find its rank under torchrun.

Keep imports fast here: `stages/__init__.py` imports this module before torch, which takes seconds.

Environment:
    DDPM_PARENT  the process id of DVC; set by dvc.yaml.
"""

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]  # the folder of dvc.yaml
CODE: dict[str, str] = {}  # sha256 of library and stage files, hashed before they are imported


def begin_stage() -> None:
    """Hash the code, and end this process when DVC ends."""
    CODE.update(hash_code())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports prints no traceback
    if parent := os.environ.get("DDPM_PARENT", ""):
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()


def hash_code() -> dict[str, str]:
    """Return the sha256 of each library and stage file, by its path relative to dvc.yaml.

    Hidden files are left out: while it edits loop.py, Emacs keeps a link .#loop.py that leads nowhere.
    """
    files = [path for folder in ("src/ddpm", "stages") for path in sorted((ROOT / folder).rglob("[!.]*.py"))]
    return {path.relative_to(ROOT).as_posix(): sha256(path) for path in files}


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rank() -> int:
    """Return the rank of this process under torchrun, or 0 for a single process."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _end_with(ancestor: int) -> None:
    """Send SIGTERM to this process once `ancestor` has ended; torchrun may still run after DVC was killed."""
    while ancestor in [each.pid for each in psutil.Process().parents()]:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
