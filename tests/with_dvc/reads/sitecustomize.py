"""Notes which files of the workspace a stage opens to read: Python runs this where PYTHONPATH names its folder."""

import os
import sys

if (stage := os.environ.get("DVC_STAGE")) and "READS" in os.environ:
    LOG = os.open(os.environ["READS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and str(arguments[1]).startswith("r"):
            path = os.path.relpath(arguments[0])
            if path.startswith(("data/", "metrics/", "models/")):
                os.write(LOG, f"{stage}\t{path}\n".encode())

    sys.addaudithook(note)
