"""Check that params.yaml and dvc.lock are whole and have no merge conflict; DVC's own messages name no fix.

`make repro` runs this first. It also prints how this environment differs from that of the recorded training.
"""

import re
import sys
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.strictyaml import load

from ddpm.compute.device import ARITHMETIC, start
from exact_stages.console import UserError, run
from exact_stages.files import read_yaml

PARAMS, LOCK = Path("params.yaml"), Path("dvc.lock")
ENVIRONMENT = Path("metrics/train/environment.json")
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


def environment_note(recorded: Path) -> str:
    """Describe how this environment differs from the recorded training's; DVC does not track it.

    Raises:
        UserError: an environment variable asks for something that this machine lacks.
    """
    here = start().describe()
    before = read_yaml(recorded) if recorded.exists() else here
    names = [*here, *(name for name in ARITHMETIC if name in before and name not in here)]
    pairs = [(name, before.get(name), here.get(name)) for name in names]
    other = ", ".join(f"{name} {then} (here {now})" for name, then, now in pairs if then != now)
    return other and f"note: {recorded} has {other}: results from this machine may differ by rounding"


def main() -> None:
    """Check both files, and print the note."""
    check_readable()
    if note := environment_note(ENVIRONMENT):
        print(note, file=sys.stderr)


if __name__ == "__main__":
    run(main)
