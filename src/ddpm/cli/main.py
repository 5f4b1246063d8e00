"""The command `ddpm`: run the subcommand that the command line names."""

import signal
import sys

from exact_stages.console import run


def main() -> None:
    """Run the subcommand; Ctrl-C and SIGTERM end it in one line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(chosen)


def chosen() -> None:
    """Parse the command line, and run its subcommand."""
    from ddpm.cli.commands import read  # takes seconds: Ctrl-C may come meanwhile

    read(sys.argv[1:] or ["--help"]).run()
