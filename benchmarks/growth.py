"""How seconds, memory and disk grow with the number of images, their size, the batch, the channels and the processes.

    python -m benchmarks.growth images --counts 1000 10000 100000
    python -m benchmarks.growth images --counts 1000000 --made-of mnist-files
    python -m benchmarks.growth images --counts 1000000 --side 64 --colour --made-of arrays --until train
    python -m benchmarks.growth processes
    python -m benchmarks.growth sizes
    python -m benchmarks.growth report

`images` and `processes` run `dvc add` and the pipeline's stages by `dvc repro`, in a workspace of their own, on images
that show nothing; `sizes` trains on noise, each setting in a process of its own. What is measured goes into
docs/growth, where it takes the place of what was measured of the same before; `report` prints tables, and draws.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.growth_report import report, write_row
from benchmarks.synthetic import (
    MEGABYTE,
    RESIDENT,
    SET,
    TEST,
    Cost,
    Shape,
    apart,
    disk,
    make_workspace,
    measured,
    set_params,
    write_archives,
    write_arrays,
    write_mnist_files,
    write_pictures,
)
from ddpm.pipeline.console import progress, run

Row = dict[str, Any]
OUT = Path("docs/growth")
MADE_OF = ("pictures", "mnist-files", "arrays")
UNTIL = ("preprocess", "train", "evaluate")
BATCH = 64
HELD_OUT = 0.02  # of sets of 10,000 images and more, which count among `train.images`
SHORT: Row = {  # for the stages behind `train`, whose seconds grow with these and not with the images
    "classifier.images": 2560,
    "sample.population.count": 1000,
    "sample.population.steps": 20,
    "sample.gallery.count": 8,
    "sample.gallery.steps": 20,
    "sample.gallery.keep_every": 5,
}
SIDES, BATCHES, WIDTHS = (28, 32, 48, 64, 96, 128), (2, 8, 32, 64, 128, 256, 512), (8, 16, 32, 64)
SLOPE = (16, 64)  # batches between which the memory of an image is told


def main() -> None:
    """Measure what the command line asks for, and keep it."""
    args = arguments()
    if args.only:
        print(json.dumps(trained(json.loads(args.only), args.seconds)))
        return
    if args.what == "images":
        shape = (3 if args.colour else 1, args.side, args.side)
        for count in args.counts:
            keep("images", by_images(count, shape, args))
    elif args.what == "processes":
        keep("processes", by_processes(args))
    elif args.what == "sizes":
        keep("sizes", by_sizes(args.seconds))
    report(OUT)


def keep(name: str, rows: Iterator[tuple[Row, Row]]) -> None:
    """Write each row, of what was measured and what it took, as soon as it is there."""
    for setting, cost in rows:
        print(json.dumps({**setting, **cost}), flush=True)
        write_row(OUT / f"{name}.csv", setting, cost)


def by_images(count: int, shape: Shape, args: argparse.Namespace) -> Iterator[tuple[Row, Row]]:
    """From `dvc add` to `evaluate`, or as far as is asked for."""
    setting = {"made_of": args.made_of, "shape": "x".join(map(str, shape)), "images": count}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        make_workspace(folder, shape)

        def took(what: str, *command: str, written: tuple[str, ...] = ()) -> tuple[Row, Row]:
            cost = measured([sys.executable, "-m", "dvc", *command, "--quiet"], folder)
            return setting | {"what": what}, row(cost, disk(*(folder / each for each in written)))

        if args.made_of == "arrays":
            apart(write_arrays, folder / "data/processed", count, shape)
        else:
            if args.made_of == "pictures":
                apart(write_pictures, folder / SET, count, shape)
                apart(write_archives, folder / SET, folder / "archives")
                yield took("dvc add, an archive a class", "add", "archives", written=("archives", ".dvc/cache"))
            else:
                tested = int(count * TEST)
                apart(write_mnist_files, folder / SET, count - tested, tested)
            before = disk(folder / ".dvc/cache")
            added, cost = took("dvc add", "add", SET, written=(SET, ".dvc/cache"))
            yield added, cost | {"disk": cost["disk"] - round(before)}
            yield took("dvc status", "status", f"{SET}.dvc")
            yield took("preprocess", "repro", "--single-item", "preprocess", written=("data/processed",))
        if args.until == "preprocess":
            return
        for what, cost in by_steps(folder, args.steps, args.batch):
            yield setting | {"what": what}, cost
        if args.until == "evaluate":
            set_params(folder, SHORT)
            for stage in ("classifier@a", "classifier@b", "sample@gallery", "sample@population", "filter", "evaluate"):
                yield took(stage, "repro", "--single-item", stage)


def by_steps(
    folder: Path, steps: int, batch: int, environment: dict[str, str] | None = None
) -> Iterator[tuple[str, Row]]:
    """The training of one step, and of some so many, and what of it is a step's; small sets take smaller batches."""
    costs, taken = [], []
    for wanted in (1, steps):
        images = round(wanted * batch / (1 - HELD_OUT))
        set_params(folder, {"train.images": images, "train.batch_size": batch})
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", "--quiet", "train"]
        costs.append(measured(command, folder, environment))
        taken.append(json.loads((folder / "metrics/train/summary.json").read_text())["steps"])
        yield f"train, {'one step' if wanted == 1 else f'some {wanted:,} steps of {batch}'}", row(costs[-1])
    first, last = costs
    seconds, cpu = (after - before for after, before in zip(last[:2], first[:2], strict=True))
    more = taken[1] - taken[0]
    yield f"a step of {batch}", row(last._replace(seconds=seconds / more, cpu=cpu / more))


def by_processes(args: argparse.Namespace) -> Iterator[tuple[Row, Row]]:
    """Training by one and two processes of a thread each, and by one of two threads."""
    for side, channels in ((28, 1), (64, 3)):
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder, shape = Path(name), (channels, side, side)
            make_workspace(folder, shape)
            apart(write_arrays, folder / "data/processed", 10_000, shape)
            for processes, threads in ((1, 1), (2, 2), (1, 2)):  # the threads are those of all processes
                environment = {"DDPM_PROCESSES": str(processes), "DDPM_THREADS": str(threads)}
                setting = {"shape": "x".join(map(str, shape)), "processes": processes, "threads": threads}
                for what, cost in by_steps(folder, args.steps, args.batch, environment):
                    yield setting | {"what": what}, cost


def by_sizes(seconds: float) -> Iterator[tuple[Row, Row]]:
    """Training with one thing changed from the default at a time, or two: the batch beside the shape."""
    settings = [{"batch": batch} for batch in BATCHES] + [{"width": width} for width in WIDTHS]
    settings += [{"side": side, "channels": each, "batch": b} for side in SIDES for each in (1, 3) for b in SLOPE]
    for given in progress(settings, desc="sizes"):
        setting = {"side": 28, "channels": 1, "batch": BATCH, "width": 0, **given}
        command = [sys.executable, "-m", "benchmarks.growth", "sizes", "--seconds", str(seconds)]
        printed = subprocess.run(
            [*command, "--only", json.dumps(setting)], check=True, stdout=subprocess.PIPE, text=True
        )
        yield setting, json.loads(printed.stdout.splitlines()[-1])


def trained(setting: dict[str, int], seconds: float) -> Row:
    """Train on noise for so many CPU seconds: images per one of them, and the peak of memory in megabytes.

    The width is the channels of the first resolution, with which the others grow; 0 is the default's.
    """
    from benchmarks.trainings import NOISE, on_noise
    from ddpm.compute.device import start
    from ddpm.pipeline.params import load_params
    from stages.train import Params

    params = load_params(Params)
    data = NOISE.model_copy(update={"shape": (setting["channels"], setting["side"], setting["side"])})
    model = params.model.for_images(data.shape)
    if setting["width"]:
        first, *_ = model.channels or (1,)
        widths = tuple(width * setting["width"] // first for width in model.channels or ())
        model = model.model_copy(update={"channels": widths})
    train = params.train.model_copy(update={"batch_size": setting["batch"]})
    changed = params.model_copy(update={"model": model, "train": train})
    training = on_noise(changed, 4 * setting["batch"], start(), data)
    events = training.run()
    while training.step < 2:
        next(events)
    began, first_step = time.process_time(), training.step
    while time.process_time() - began < seconds:
        next(events)
    rate = (training.step - first_step) * setting["batch"] / (time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RESIDENT / MEGABYTE
    return {"images_per_cpu_second": round(rate, 1), "peak": round(peak, 1)}


def row(cost: Cost, written: float = 0) -> Row:
    """As it is kept: seconds, and megabytes."""
    seconds, cpu = (float(f"{each:.4g}") for each in cost[:2])
    return {"seconds": seconds, "cpu": cpu, "peak": round(cost.peak), "own": round(cost.own), "disk": round(written)}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["images", "processes", "sizes", "report"])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000], help="images")
    parser.add_argument("--side", type=int, default=28, help="pixels a side")
    parser.add_argument("--colour", action="store_true")
    parser.add_argument("--made-of", choices=MADE_OF, default="pictures", help="what the first stage begins with")
    parser.add_argument("--until", choices=UNTIL, default="evaluate", help="the last stage")
    parser.add_argument("--steps", type=int, default=100, help="gradient steps that are timed")
    parser.add_argument("--batch", type=int, default=BATCH, help="images in each of them")
    parser.add_argument("--seconds", type=int, default=4, help="length of each measurement of sizes")
    parser.add_argument("--folder", type=Path, default=os.environ.get("TMPDIR"), help="where the workspaces lie")
    parser.add_argument("--only", metavar="JSON", help="measure one setting of sizes and print it as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
