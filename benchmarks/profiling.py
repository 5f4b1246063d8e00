"""Where the time of a gradient step goes: the operations that take the most of it, by torch.profiler, and their number.

    DDPM_THREADS=1 python -m benchmarks.profiling
    DDPM_THREADS=1 python -m benchmarks.profiling --article

On one thread, where none waits for another.
"""

import argparse
from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.trainings import article_params, gradient_steps, on_noise
from ddpm.cli.drawing_options import at_least
from ddpm.compute.device import start
from ddpm.pipeline.console import run
from ddpm.pipeline.params import load_params
from stages.train import Params

WARMUP_STEPS = 5
VIEWS = {"view", "t", "t_", "transpose", "expand", "slice", "select", "split", "split_with_sizes", "chunk", "unbind"}
VIEWS |= {"unsqueeze", "squeeze", "permute", "detach", "alias", "diagonal", "as_strided"}
VIEWS |= {"_unsafe_view", "_reshape_alias"}


class Kernels(TorchDispatchMode):
    """Counts the operations that are dispatched, by name and but for views: on a GPU each is a launch."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.counts.update([name] * (name not in VIEWS))
        return function(*args, **(kwargs or {}))


def main() -> None:
    """Profile some steps of the network, and print the table."""
    args = arguments()
    params, runtime = article_params() if args.article else load_params(Params), start()
    steps = gradient_steps(on_noise(params, params.train.batch_size * (WARMUP_STEPS + args.steps), runtime))
    for _ in range(WARMUP_STEPS):
        next(steps)
    with Kernels() as kernels:
        next(steps)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(args.steps):
            next(steps)
    operations = sorted(profiled.key_averages(), key=lambda each: -each.self_cpu_time_total)
    total = sum(each.self_cpu_time_total for each in operations)
    milliseconds, launches = total / args.steps / 1000, kernels.counts.total()
    print(f"{milliseconds:.0f} ms a step of {params.train.batch_size} images; {launches} operations, views apart\n")
    print("| operation | calls in a step | part of the time |\n| --- | --- | --- |")
    for each in operations[: args.rows]:
        print(f"| `{each.key}` | {each.count / args.steps:.0f} | {each.self_cpu_time_total / total:.1%} |")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=at_least(1), default=20, help="gradient steps that are profiled")
    parser.add_argument("--rows", type=at_least(1), default=14, help="operations in the table")
    parser.add_argument("--article", action="store_true", help="the article's network, in place of the default")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
