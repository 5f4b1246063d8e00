"""What is spent before work begins: the imports of each stage, and a `dvc repro` that finds nothing to do.

    python -m benchmarks.startup --rounds 5

Prints medians over rounds that take turns. The pipeline must be up to date.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ddpm.cli.drawing_options import at_least
from ddpm.pipeline.console import UserError, progress, run


def main() -> None:
    """Time all commands in turns, then print the table."""
    rounds = arguments().rounds
    if "Running stage" in subprocess.run(["dvc", "repro", "--dry"], capture_output=True, text=True, check=True).stdout:
        raise UserError("the pipeline is not up to date; run make repro first")
    names = sorted(path.stem for path in Path("stages").glob("[!_]*.py"))
    commands = {f"start of `{name}`": [sys.executable, "-c", f"import stages.{name}"] for name in names}
    commands |= {
        "`dvc status`": ["dvc", "status", "--quiet"],
        "`dvc repro`, nothing to do": ["dvc", "repro", "--quiet"],
        "`dvc repro --all-pipelines`, nothing to do": ["dvc", "repro", "--quiet", "--all-pipelines"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in progress(range(rounds), desc="startup", unit="round"):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    print("| | seconds |\n| --- | --- |")
    for name, times in seconds.items():
        print(f"| {name} | {statistics.median(times):.2f} |")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=5, help="turns of each")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
