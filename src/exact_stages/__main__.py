"""Run `python -m exact_stages code`, `why`, `check` or `trace`."""

import sys
from pathlib import Path

from exact_stages import commands, trace
from exact_stages.console import UserError, run

USAGE = "usage: python -m exact_stages code [--check], why [STAGE], check, or trace STAGE [dvc.yaml]"


def main() -> None:
    """Run the command that the arguments name."""
    match sys.argv[1:]:
        case ["code"] | ["code", "--check"]:
            commands.write("--check" in sys.argv)
        case ["why"] | ["why", _]:
            commands.why(*sys.argv[2:])
        case ["check"]:
            commands.check()
        case ["trace", stage, *path] if len(path) < 2:
            trace.main(stage, Path(*path or ["dvc.yaml"]))
        case ["-h" | "--help"]:
            print(USAGE)
        case _:
            raise UserError(USAGE)


if __name__ == "__main__":
    run(main)
