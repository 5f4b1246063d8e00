"""Note the files that the Python processes of a stage open; `trace` copies this file to where they run it at start.

It needs no other file, and any Python 3.8 runs it.
"""

import os
import sys
from types import FrameType
from typing import Any

LOG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "opened")
HASHING = tuple(f"exact_stages/{name}.py" for name in ("code", "declared", "imports", "provenance"))
noted: "set[str]" = set()


def hashes(frame: "FrameType | None") -> bool:
    """Return whether a stage of exact_stages only hashes a file, as it does with the deps of all stages."""
    found = False
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if name == "input" and file.endswith("exact_stages/stage.py"):
            return False  # the stage reads it next, maybe by native code
        found |= file.endswith(HASHING) or (name in ("sha256", "md5") and file.endswith("exact_stages/files.py"))
        found |= name == "begun" and file.endswith("exact_stages/stage.py")
        frame = frame.f_back
    return found


def note(kind: str, path: "str | bytes") -> None:
    """Append a line to the log. Whatever closes all open files, as a daemon does, would close a log kept open."""
    line = f"{os.environ.get('DVC_STAGE', '')}\t{kind}\t{os.path.abspath(os.fsdecode(path))}\0"
    if line not in noted:
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(log, os.fsencode(line))
        os.close(log)
        noted.add(line)


def hook(event: str, arguments: "tuple[Any, ...]") -> None:
    """Note an event that names a file; no error reaches the stage."""
    try:
        if event == "open" and arguments[0] != LOG:
            path, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR)
            if not flags & (os.O_WRONLY | os.O_CREAT) and not hashes(sys._getframe(1)):
                note("reads", path)
            if writes:
                note("writes", path)
        elif event in ("os.rename", "os.link", "os.symlink"):
            note("writes", arguments[1])
    except (OSError, TypeError, ValueError):
        pass


sys.addaudithook(hook)
