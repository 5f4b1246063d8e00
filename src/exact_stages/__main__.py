"""Run `python -m exact_stages check` or `trace`."""

import sys
from pathlib import Path

from exact_stages import check, trace
from exact_stages.console import UserError, run


def main() -> None:
    """Run the command that the arguments name."""
    match sys.argv[1:]:
        case ["check", *rest] if len(path := [each for each in rest if each != "--write"]) < 2:
            check.main(Path(*path or ["dvc.yaml"]), "--write" in rest)
        case ["trace", stage, *path] if len(path) < 2:
            trace.main(stage, Path(*path or ["dvc.yaml"]))
        case _:
            raise UserError("usage: python -m exact_stages check [--write] [dvc.yaml], or trace STAGE [dvc.yaml]")


run(main)
