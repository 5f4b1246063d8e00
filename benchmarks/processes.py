"""What a gradient step costs each of several processes that train together, by the images in a batch.

    DDPM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.processes

Prints steps per second and the time on a processor of the first process, which, unlike the rate, other work on the
machine does not change much. The network is that of params.yaml, and the images are noise.
"""

import argparse
import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks.trainings import gradient_steps, on_noise
from ddpm.cli.drawing_options import at_least
from ddpm.compute.device import Runtime, start
from ddpm.parallel.group import Group, join, place
from ddpm.pipeline.console import run
from ddpm.pipeline.params import load_params
from ddpm.training.loop import Training
from stages.train import Params

BATCHES = (16, 64, 256)
IMAGES, WARMUP_STEPS = 2560, 3


def main() -> None:
    """Time the steps, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description="Time steps of training.")
    parser.add_argument("--rounds", type=at_least(1), default=5, metavar="N", help="of each batch (default: 5)")
    rounds = parser.parse_args().rounds
    runtime, group = start(), place()
    join(group, runtime.device)
    if group.rank == 0:
        print("| processes | batch | steps/s | ms on a processor |\n| --- | --- | --- | --- |")
    for batch in BATCHES:
        steps = gradient_steps(training(batch, runtime, group))
        for _ in range(WARMUP_STEPS):
            next(steps)
        found = [timed(steps, 4 + 512 // batch, group) for _ in range(rounds)]
        rate = statistics.median(rate for rate, _ in found)
        if group.rank == 0:
            print(f"| {group.size} | {batch} | {rate:.2f} | {min(cost for _, cost in found) * 1e3:.0f} |")


def training(batch: int, runtime: Runtime, group: Group) -> Training:
    """A run on noise, the same in all processes, of which this one has its share."""
    params = load_params(Params)
    torch.manual_seed(0)
    changed = params.model_copy(update={"train": params.train.model_copy(update={"batch_size": batch})})
    return on_noise(changed, IMAGES, runtime, group=group)


def timed(steps: Iterator[object], count: int, group: Group) -> tuple[float, float]:
    """Steps per second, and seconds on a processor for each of so many steps that all processes begin together."""
    group.gather(None)
    began, cost = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(steps)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began), (time.process_time() - cost) / count


if __name__ == "__main__":
    run(main)
