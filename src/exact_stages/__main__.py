"""Run `python -m exact_stages code`, `why`, `check`, `trace` or `twice`; the installed command is `exact-stages`."""

import sys

from exact_stages import commands, trace, twice
from exact_stages.console import UserError, run

USAGE = "usage: exact-stages code [--check], why [STAGE], check, trace STAGE, or twice STAGE [--kill N] [--seed SEED]"


def main() -> None:
    """Run the command that the arguments name."""
    run(_main)


def _main() -> None:
    match sys.argv[1:]:
        case ["code"] | ["code", "--check"]:
            commands.write("--check" in sys.argv)
        case ["why"] | ["why", _]:
            commands.why(*sys.argv[2:])
        case ["check"]:
            commands.check()
        case ["trace", stage]:
            trace.main(stage)
        case ["twice", stage, *options]:
            twice.main(stage, *options)
        case ["-h" | "--help"]:
            print(USAGE)
        case _:
            raise UserError(USAGE)


if __name__ == "__main__":
    main()
