"""Check that params.yaml and dvc.lock are whole and have no merge conflict; DVC's own messages name no fix.

`make repro` runs this first.
"""

import re
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.strictyaml import load

from exact_stages.console import UserError, run
from exact_stages.files import read_yaml

PARAMS, LOCK = Path("params.yaml"), Path("dvc.lock")
SETTLE = "`git checkout --ours dvc.lock metrics`, settle params.yaml, then `dvc repro`"


def check_readable() -> None:
    """Read both files, where they exist.

    Raises:
        UserError: one of them cannot be read; the message says how to mend it.
    """
    if PARAMS.exists():
        read_yaml(PARAMS)
    if not LOCK.exists():
        return
    text = LOCK.read_text(encoding="utf-8", errors="replace")
    if re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
        raise UserError(f"{LOCK}: a merge conflict; {SETTLE}")
    try:
        load(str(LOCK), COMPILED_LOCKFILE_SCHEMA)
        whole = text.endswith("\n")  # half a file may be valid
    except DvcException:
        whole = False
    if not whole:
        raise UserError(f"{LOCK}: half-written or damaged; `git checkout {LOCK}`, then `dvc repro`")


if __name__ == "__main__":
    run(check_readable)
