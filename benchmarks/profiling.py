"""Where the time of a gradient step goes: the operations that take the most of it, by torch.profiler.

    DDPM_THREADS=1 python -m benchmarks.profiling

On one thread, where none waits for another.
"""

import argparse

from torch.profiler import ProfilerActivity, profile

from benchmarks.trainings import on_noise
from ddpm.drawing_options import at_least
from ddpm.runtime.console import run
from ddpm.runtime.device import start
from ddpm.runtime.params import load_params
from stages.train import Params

WARMUP_STEPS = 5


def main() -> None:
    """Profile some steps of the default, and print the table."""
    args = arguments()
    params, runtime = load_params(Params), start()
    training = on_noise(params, params.train.batch_size * (WARMUP_STEPS + args.steps), runtime)
    steps = training.run()
    for _ in range(WARMUP_STEPS):
        next(steps)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(args.steps):
            next(steps)
    operations = sorted(profiled.key_averages(), key=lambda each: -each.self_cpu_time_total)
    total = sum(each.self_cpu_time_total for each in operations)
    print(f"{total / args.steps / 1000:.0f} ms a step of {params.train.batch_size} images\n")
    print("| operation | calls in a step | part of the time |\n| --- | --- | --- |")
    for each in operations[: args.rows]:
        print(f"| `{each.key}` | {each.count / args.steps:.0f} | {each.self_cpu_time_total / total:.1%} |")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=at_least(1), default=20, help="gradient steps that are profiled")
    parser.add_argument("--rows", type=at_least(1), default=14, help="operations in the table")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
