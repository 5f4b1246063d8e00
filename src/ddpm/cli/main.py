"""The command `ddpm`."""

import signal
import sys

from ddpm.pipeline.console import run


def main() -> None:
    """Run the subcommand on the command line; Ctrl-C and SIGTERM end it in one line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(chosen)


def chosen() -> None:
    """Read the command line, and do what it says."""
    from ddpm.cli.commands import read  # takes seconds: Ctrl-C may come meanwhile

    read(sys.argv[1:] or ["--help"]).run()
