"""What a card has to show, in one table: whether its results are right, how fast it is, and the memory that it takes.

    python -m benchmarks.gpu
    python -m benchmarks.gpu gradients steps
    python -m benchmarks.gpu --small

Run it from the repository's root. It ends within ten minutes, whatever a part does: each has a process of its own and a
limit of time; the table names those that failed, and why, and the exit code is then 1. Parts whose names end in
"captured" replay steps as CUDA graphs (DDPM_CAPTURE=1), the others do not; `stages` does as the environment says. What
only a card can measure is "not measured" on a CPU. See docs/gpu.md for a machine without a network.
"""

import argparse
import datetime
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.on_a_card.correctness import gradients, losses
from benchmarks.on_a_card.pipeline import stages
from benchmarks.on_a_card.setting import FULL, NOT_MEASURED, SMALL, Row, Setting
from benchmarks.on_a_card.speed import batch_sizes, epochs, samples, steps
from benchmarks.on_a_card.states import capture, repeats
from benchmarks.on_a_card.synchronisations import synchronisations
from benchmarks.synthetic import ROOT
from ddpm.compute.device import Runtime, start
from ddpm.pipeline.console import UserError, run, shown
from ddpm.pipeline.files import write_whole

ALL_SECONDS = 585.0  # of the ten minutes
OUT = Path("build/gpu.md")


class Part(NamedTuple):
    """What is measured in a process of its own, and for so many seconds at most."""

    measure: Callable[[Setting, Runtime], Iterator[Row]]
    seconds: float
    captured: bool | None = False  # None: as the environment says; True: a CPU has nothing to measure


PARTS = {
    "gradients": Part(gradients, 90),
    "losses": Part(losses, 120),
    "repeats": Part(repeats, 120),
    "states-captured": Part(capture, 120, True),
    "synchronisations": Part(synchronisations, 60),
    "synchronisations-captured": Part(synchronisations, 60, True),
    "epochs": Part(epochs, 60),
    "epochs-captured": Part(epochs, 60, True),
    "steps": Part(steps, 45),
    "steps-captured": Part(steps, 45, True),
    "samples": Part(samples, 90),
    "samples-captured": Part(samples, 90, True),
    "stages": Part(stages, 300, None),
    "batch-sizes": Part(batch_sizes, 60),
    "batch-sizes-captured": Part(batch_sizes, 60, True),
}


class Outcome(NamedTuple):
    """The rows that a part gave, and why it failed, if it did."""

    rows: list[str]
    failure: str = ""


def main() -> None:
    """Measure one part in this process, or all that are asked for, each in another."""
    args = arguments()
    if args.part:
        measure(args.part, SMALL if args.small else FULL)
        return
    runtime, deadline = start(), time.monotonic() + ALL_SECONDS
    found: dict[str, Outcome] = {}
    for number, name in enumerate(args.parts, start=1):
        print(f"part {number} of {len(args.parts)}: {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        found[name] = outcome(name, args.small, runtime, deadline)
        done = found[name].failure or f"done in {time.monotonic() - began:.0f} s"
        print(f"part {number} of {len(args.parts)}: {name}: {done}", file=sys.stderr, flush=True)
    text = f"{head(runtime, args.small)}\n\n{table(found)}\n"
    print(text, end="")
    write_whole(args.out, text.encode())
    if failed := [name for name, each in found.items() if each.failure]:
        raise UserError(f"failed: {', '.join(failed)}; the table in {args.out} says why")


def measure(name: str, setting: Setting) -> None:
    """Print the rows of a part; where it fails, a traceback to stderr, and in one line the reason behind the rows."""
    beyond = []
    try:
        for row in PARTS[name].measure(setting, start()):
            print(row, flush=True)
            beyond += [] if row.kept else [row.what]
        if beyond:
            raise UserError(f"{beyond[0]}: beyond its bound{f', and {len(beyond) - 1} more' if beyond[1:] else ''}")
    except Exception as error:  # whatever it is, the other parts go on
        if not isinstance(error, UserError):
            traceback.print_exc()
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        print(f"error: {kind}{next(iter(str(error).splitlines()), '')}", flush=True)
        sys.exit(1)


def outcome(name: str, small: bool, runtime: Runtime, deadline: float) -> Outcome:
    """What a process gives that measures the part, which ends with it, or when its time is over."""
    part = PARTS[name]
    if part.captured and runtime.device.type != "cuda":
        return Outcome([str(Row(name, NOT_MEASURED))])
    left = round(deadline - time.monotonic(), 1)
    seconds = left if small else min(part.seconds, left)  # a CPU may have much else to do
    if seconds <= 0:
        return Outcome([], "not begun, for the time of all was over")
    variables = dict(os.environ)
    if part.captured is not None:
        variables.pop("DDPM_CAPTURE", None)
    if part.captured:
        variables["DDPM_CAPTURE"] = "1"
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, *(["--small"] if small else [])]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, start_new_session=True)
    late = False
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
    finally:
        if process.poll() is None:  # all that it has begun is in its group
            os.killpg(process.pid, signal.SIGKILL)
    if late:
        printed, _ = process.communicate()
    return read(printed, f"not done after {seconds:g} s" if late else "", process.returncode)


def read(printed: str, failure: str, code: int) -> Outcome:
    """The rows among what a part printed, and why it failed, if its exit code is not 0."""
    lines = printed.splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code and not failure:
        failure = said[-1] if said else f"exit code {code}"
    return Outcome([line for line in lines if line.startswith("| ")], shown(failure))


def table(found: dict[str, Outcome]) -> str:
    """In Markdown, the parts that failed behind the rows that they gave."""
    lines = ["| what | value | bound or target |", "| --- | --- | --- |"]
    for name, (rows, failure) in found.items():
        lines += rows
        if failure:
            lines.append(str(Row(f"the part `{name}`", f"failed: {failure}")))
    return "\n".join(lines)


def head(runtime: Runtime, small: bool) -> str:
    """On what, with what, when and of which commit."""
    card = f"no card, a CPU ({runtime.describe()['cpu']})"
    if runtime.device.type == "cuda":
        card = torch.cuda.get_device_name(runtime.device)
    driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    changed = " with changes" if _said("git", "status", "--porcelain", "--untracked-files=no") != "unknown" else ""
    commit = _said("git", "rev-parse", "--short", "HEAD")
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{card}, driver {driver}, torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}, "
        f"{str(runtime.precision).removeprefix('torch.')}, {today}, commit {commit}{changed}"
        f"{'; the small setting, whose times say nothing' if small else ''}."
    )


def _said(*command: str) -> str:
    """The first line that a command prints, or "unknown"."""
    try:
        printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next(iter(printed.splitlines()), "unknown")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--small", action="store_true", help="all of it with tiny networks, in two minutes of a CPU")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the table is written (default: {OUT})")
    parser.add_argument("--part", choices=PARTS, help="measure this part in this process, and print its rows alone")
    args = parser.parse_args()
    if unknown := [name for name in args.parts if name not in PARTS]:
        parser.error(f"no part {shown(unknown[0])!r}; choose from {', '.join(PARTS)}")
    args.parts = list(dict.fromkeys(args.parts)) or [*PARTS]
    return args


if __name__ == "__main__":
    run(main)
