"""The command `ddpm`: run the subcommand that the command line names."""

import os
import signal
import sys

from exact_stages.console import run


def main() -> None:
    """Run the subcommand; Ctrl-C and SIGTERM end it in one line."""
    # A process has one thread, see ddpm.processes.workers; libraries read this when they are imported.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(chosen)


def chosen() -> None:
    """Parse the command line, and run its subcommand."""
    from ddpm.processes.portable import limit

    limit()
    from ddpm.cli.commands import read  # takes seconds: Ctrl-C may come meanwhile

    read(sys.argv[1:] or ["--help"]).run()
