"""Compare a training step of two checkouts in turns, and the seconds of each stage in each precision.

    python -m studies.speed.steps BEFORE [AFTER]
    python -m studies.speed.steps --stages

BEFORE and AFTER are paths of checkouts, or commits of this repository; AFTER is by default this checkout. A round is
STEPS steps of each, after WARM_UP ones: by one worker and by two, by four if there are so many cores, and by two
beside two busy programs. Images are noise of MNIST's shape. With --stages, `dvc repro` runs in a clone of the last
commit with a tenth of the default run's images, once in each of PRECISIONS. Adds rows to steps.csv and stages.csv, and
prints medians.
"""

import argparse
import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from ddpm.processes.device import start
from ddpm.processes.workers import cores
from exact_stages.console import UserError, progress, run
from studies.table import Table

FOLDER, ROOT = Path(__file__).parent, Path(__file__).parents[2]
WARM_UP, STEPS, ROUNDS, BATCH = 10, 60, 5, 64
BUSY = "while True: pass"
KINDS = ((1, 0), (2, 0), (4, 0), (2, 2))  # workers, and busy programs beside them
PRECISIONS = ("bfloat16", "float32", "portable")
TENTH = {"classifier.images_seen": 18_000, "train.images_seen": 33_000, "sample.scored.count": 1_040}
# Runs with the code and the params of a checkout, by the loop of the stage `train`, in a folder of its own.
TIMED = """
import sys, time, torch
from pathlib import Path
from ddpm.diffusion.training import new_training
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, SplitFile
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import start
from ddpm.processes.world import ALONE
from exact_stages.params import load_params
from stages.train import Params

first, last, batch = map(int, sys.argv[2:])
params, runtime, count = load_params(Params, path=Path(sys.argv[1], "params.yaml")), start(), 60_000
card = DataCard(name="noise", shape=(1, 28, 28), classes=tuple("0123456789"))
images = Split(torch.randint(256, (count, *card.shape), dtype=torch.uint8), torch.arange(count) % 10)
changes = {"images_seen": batch * (last + 10), "batch_size": batch}  # the last step validates
if params.train.fine_tune_from == "data/processed/start":  # which no stage has written here
    changes["fine_tune_from"] = "data/scratch"
train = params.train.model_copy(update=changes)
split_file = SplitFile(card, images, torch.arange(count), (6,) * 10)
training = new_training(split_file, params.schedule, params.model, train, runtime)
steps, times = training.run, {}

def timed(world):
    for loss in steps(world):
        times[training.step] = time.perf_counter()
        yield loss

training.run = timed
with Checkpoints("steps", "speed", ALONE, training=training) as checkpoints:
    checkpoints.run("steps", training)
print(1000 * (times[last] - times[first]) / (last - first))
"""


def main() -> None:
    """Measure what the options ask for; keep the rows, and print tables of them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkouts", nargs="*", metavar="CHECKOUT", help="BEFORE [AFTER]")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each")
    options.add_argument("--stages", action="store_true", help="also run all stages, in each precision")
    args = options.parse_args()
    here = {"date": datetime.now(UTC).date().isoformat(), "cores": cores(), **start().describe()}
    here.pop("device")
    if args.checkouts:
        before, after = (*args.checkouts, str(ROOT))[:2]
        steps(before, after, args.rounds, Table(FOLDER / "steps.csv"), here)
    if args.stages:
        stages(Table(FOLDER / "stages.csv"), here)


def steps(before: str, after: str, rounds: int, table: Table, here: Mapping[str, object]) -> None:
    """Take steps of both in turns, add a row for each round, and print medians over them."""
    with ExitStack() as opened:
        places = [opened.enter_context(checkout(each)) for each in (before, after)]
        names = [name_of(place) for place in places]
        kinds = [(workers, others) for workers, others in KINDS if workers <= max(2, cores())]
        turns = [(number, *kind) for number in range(rounds) for kind in kinds]
        rows = []
        for number, workers, others in progress(turns, desc="steps", unit="round"):
            with busy(others):
                taken = [milliseconds(place, workers) for place in places]
            rows.append({"workers": workers, "busy": others, "before_ms": taken[0], "after_ms": taken[1]})
            named = {"before": names[0], "after": names[1], "round": number}
            table.add({**here, **named, **{key: round(value, 2) for key, value in rows[-1].items()}})
    found = pd.DataFrame(rows).assign(ratio=lambda each: each["before_ms"] / each["after_ms"])
    medians = found.groupby(["workers", "busy"]).median()
    medians["images/s after"] = 1000 * BATCH / medians["after_ms"]
    medians["of alone"] = medians["after_ms"].loc[(2, 0)] / medians["after_ms"]
    print(medians.round(2).to_string())


def milliseconds(place: Path, workers: int) -> float:
    """Return the time of a training step with the code of a checkout, in a process of its own."""
    variables = {"PYTHONPATH": f"{place}/src{os.pathsep}{place}", "DDPM_WORKERS": str(workers), "DDPM_DEVICE": "cpu"}
    command = [sys.executable, "-c", TIMED, str(place), str(WARM_UP), str(WARM_UP + STEPS), str(BATCH)]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            command, cwd=folder, env=os.environ | one_thread | variables, capture_output=True, text=True
        )
    if ran.returncode:
        raise UserError(f"{place}: {ran.stderr.strip().splitlines()[-1]}")
    return float(ran.stdout.split()[-1])


@contextmanager
def checkout(named: str) -> Iterator[Path]:
    """Give the path of a checkout, or of a commit in a folder of its own."""
    if Path(named, "stages/train.py").exists():
        yield Path(named).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "checkout")
        if subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(place), named]
        ).returncode:
            raise UserError(f"{named}: neither a checkout nor a commit of this repository")
        try:
            yield place
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(place)], check=True)


def name_of(place: Path) -> str:
    """Return the commit of a checkout; "-dirty" behind it says that files were edited."""
    command = ["git", "-C", str(place), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep as many other programs busy."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def stages(table: Table, here: Mapping[str, object]) -> None:
    """Run all stages in each precision, add a row for each with its seconds, with the time in which DVC hashes."""
    rows = list[dict[str, object]]()
    for precision in progress(PRECISIONS, desc="stages", unit="run"):
        with checkout("HEAD") as place:
            commit = name_of(place)
            tenth(place / "params.yaml")
            seconds = of_stages(place, precision)
        rows += [{"precision": precision, "stage": name, "seconds": round(each, 1)} for name, each in seconds.items()]
        table.add(*({**here, "commit": commit, **row} for row in rows if row["precision"] == precision))
    found = (
        pd.DataFrame(rows).pivot(index="stage", columns="precision", values="seconds").loc[[*seconds], [*PRECISIONS]]
    )
    found.loc["all"] = found.sum()
    ratios = {f"{name}, ratio": found[name] / found[PRECISIONS[0]] for name in PRECISIONS[1:]}
    print(found.assign(**ratios).round(2).to_string())


def tenth(params: Path) -> None:
    """Set a tenth of the default run's images in the longest stages."""
    yaml = YAML()
    values = yaml.load(params)
    for name, count in TENTH.items():
        *sections, key = name.split(".")
        functools.reduce(lambda section, each: section[each], sections, values)[key] = count
    yaml.dump(values, params)


def of_stages(place: Path, precision: str) -> dict[str, float]:
    """Run all stages in a checkout; return the seconds from the start of each to that of the next."""
    began = {"dvc, before the first stage": time.monotonic()}
    variables = {"DDPM_PRECISION": precision, "DDPM_DEVICE": "cpu", "PYTHONPATH": f"{place}/src{os.pathsep}{place}"}
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(command, cwd=place, env=os.environ | variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if found := re.match("Running stage '([^']+)'", line):
                began[found[1]] = time.monotonic()
    if process.returncode:
        raise UserError(f"dvc repro with DDPM_PRECISION={precision}: failed, as said above")
    times = [*began.values(), time.monotonic()]
    return {name: last - first for name, first, last in zip(began, times, times[1:], strict=False)}


if __name__ == "__main__":
    run(main)
