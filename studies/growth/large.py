"""Make large sets in MNIST's format, and measure commands and training steps on them.

    python -m studies.growth.large make 10000000 data/large
    python -m studies.growth.large run python -m stages.preprocess
    python -m studies.growth.large step data/processed/train.safetensors ../other/data/processed/train.safetensors

Each image is one of MNIST's with noise in its two lowest bits, so that no two are equal. Steps of all files take turns
in one process, so that other work hits all alike.
"""

import argparse
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.ingest.fetching import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from ddpm.ingest.mnist import read_idx
from ddpm.training.begin import new_training
from exact_stages.console import UserError, progress, run
from exact_stages.params import load_params
from stages.train import Params

MNIST = Path("data/mnist")
PART = 100_000  # images written at once
MOST_TEST = 100_000
TURNS, STEPS = 20, 8


def make(count: int, folder: Path) -> None:
    """Write the four files: `count` training images, and a tenth as many test images, at most MOST_TEST."""
    levels, labels = read_idx(MNIST / TRAIN_IMAGES, 3), read_idx(MNIST / TRAIN_LABELS, 1)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for images, classes, size in (
        (TRAIN_IMAGES, TRAIN_LABELS, count),
        (TEST_IMAGES, TEST_LABELS, min(count // 10, MOST_TEST)),
    ):
        with (folder / images).open("wb") as of_levels, (folder / classes).open("wb") as of_labels:
            of_levels.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", size, 28, 28))
            of_labels.write(bytes([0, 0, 8, 1]) + struct.pack(">I", size))
            for first in progress(range(0, size, PART), desc=images):
                chosen = rng.integers(len(labels), size=min(PART, size - first))
                noise = rng.integers(4, size=(len(chosen), 28, 28), dtype=np.uint8)
                of_levels.write((levels[chosen] & 252 | noise).tobytes())
                of_labels.write(labels[chosen].tobytes())


def measure(command: list[str]) -> None:
    """Run a command; print its seconds, and the most memory of its processes together, without mapped files."""
    began, most = time.monotonic(), 0
    running = subprocess.Popen(command)
    while running.poll() is None:
        most = max(most, sum(map(own_memory, family(running.pid))))
        time.sleep(0.1)
    if running.returncode:
        raise UserError(f"{' '.join(command)}: exit code {running.returncode}")
    print(f"{' '.join(command)}: {time.monotonic() - began:.0f} s, {most / 1e6:,.0f} MB")


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def own_memory(process: psutil.Process) -> int:
    """Return the bytes in memory that are not of files."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss - memory.shared)


def step(files: list[str]) -> None:
    """Print the median CPU milliseconds of a training step on each processed file, and their ratio to the first."""
    params, runtime = load_params(Params), start()
    given = params.schedule, params.model, params.train
    trainings = [new_training(load_split(Path(file)), *given, runtime) for file in files]
    running = [iter(training.run()) for training in trainings]
    found = [[milliseconds(each) for each in running] for _ in range(TURNS + 1)][1:]  # the first turn warms up
    print(runtime.describe())
    for training, times in zip(trainings, zip(*found, strict=True), strict=True):
        ratios = [own / first for own, (first, *_) in zip(times, found, strict=True)]
        text = f"{statistics.median(times):.0f} ms, {statistics.median(ratios):.3f} times the first"
        print(f"{len(training.draws.images.labels):,} images: {text} ({min(ratios):.3f} to {max(ratios):.3f})")


def milliseconds(running: Iterator[object]) -> float:
    """Return the CPU milliseconds of each of STEPS steps."""
    began = time.process_time()
    for _ in islice(running, STEPS):
        pass
    return 1000 * (time.process_time() - began) / STEPS


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="what", required=True)
    making = commands.add_parser("make", help="write a set in MNIST's format")
    making.add_argument("count", type=int)
    making.add_argument("folder", type=Path)
    commands.add_parser("run", help="measure a command").add_argument("command", nargs=argparse.REMAINDER)
    commands.add_parser("step", help="time steps on processed files").add_argument("files", nargs="+")
    args = parser.parse_args()
    if args.what == "make":
        make(args.count, args.folder)
    elif args.what == "run":
        measure(args.command)
    else:
        step(args.files)


if __name__ == "__main__":
    run(main)
