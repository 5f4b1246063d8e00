"""What it saves a gradient step that the allocator keeps the memory that the step before has freed.

    python -m benchmarks.allocator

The same steps of the default on noise, in turns with what `ddpm.compute.device.start` asks of glibc and without it,
each time in a process of its own. Prints the median milliseconds of a step in each, and whether all states are equal.
"""

import argparse
import hashlib
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.trainings import gradient_steps, on_noise
from ddpm.cli.drawing_options import at_least
from ddpm.compute import device
from ddpm.pipeline.console import progress, run
from ddpm.pipeline.params import load_params
from stages.train import Params

KEPT, RETURNED = "kept", "returned to the system"
WARMUP_STEPS = 5


def main() -> None:
    """Time both in turns, or one of them, which another process of this script asks for."""
    args = arguments()
    if args.only:
        print(*timed(args.only, args.steps))
        return
    command = [sys.executable, "-m", "benchmarks.allocator", "--steps", str(args.steps), "--only"]
    found: dict[str, list[float]] = {KEPT: [], RETURNED: []}
    states = set()
    for memory in progress([RETURNED, KEPT] * args.rounds, desc="allocator"):
        printed = subprocess.run([*command, memory], check=True, stdout=subprocess.PIPE, text=True).stdout
        milliseconds, state = printed.split()
        found[memory].append(float(milliseconds))
        states.add(state)
    print("| memory | ms a step, each round |\n| --- | --- |")
    for memory, each in found.items():
        print(f"| {memory} | {', '.join(f'{value:.0f}' for value in each)} |")
    ratio = statistics.median(found[KEPT]) / statistics.median(found[RETURNED])
    print(f"\nratio of the medians {ratio:.2f}; the states are {'equal' if len(states) == 1 else 'not equal'}")


def timed(memory: str, steps: int) -> tuple[float, str]:
    """Median milliseconds of a step, and the hash of the state behind the last."""
    if memory == RETURNED:
        device._keep_memory = lambda: None
    params, runtime = load_params(Params), device.start()
    torch.manual_seed(0)
    training = on_noise(params, params.train.batch_size * (WARMUP_STEPS + steps), runtime)
    each = gradient_steps(training)
    for _ in range(WARMUP_STEPS):
        next(each)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        next(each)
        seconds.append(time.perf_counter() - began)
    digest = hashlib.sha256()
    for _, value in sorted(training.optimization.state().items()):
        digest.update(value.detach().contiguous().numpy().tobytes())
    return 1000 * statistics.median(seconds), digest.hexdigest()


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=3, help="of both")
    parser.add_argument("--steps", type=at_least(1), default=60, help="that are timed in each")
    parser.add_argument("--only", choices=[KEPT, RETURNED], help="measure this in this process")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
