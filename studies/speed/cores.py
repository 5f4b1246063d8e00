"""Compare the speed of the stages of two checkouts on this machine, in turns: two threads then, two workers now.

    python -m studies.speed.cores BEFORE NOW --rounds 2

Both are clones in which `dvc repro preprocess` has run. Their params.yaml is shortened. BEFORE is of a commit whose
stages compute with DDPM_THREADS. Prints seconds of the whole stages, medians over the rounds, and their ratios.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from exact_stages.console import UserError, progress, run
from studies.arguments import at_least, parser

SHORT = {
    **dict.fromkeys(("classifier.images_seen", "classifier.images"), 51_200),  # the name before, too
    **dict.fromkeys(("train.images_seen", "train.images"), 12_800),
    "sample.gallery.steps": 500,
    "sample.population.count": 2_600,
    "sample.guidance": 1.0,
    "filter.least_probability": 0,
    "likelihood.images": 200,
    "classification_accuracy_score.count": 2_600,
}
STAGES = (
    *("preprocess", "classifier", "train", "sample gallery", "sample population"),
    *("filter", "evaluate", "likelihood", "classification_accuracy_score"),
)
BUSY = "while True: pass"
ONE, TWO, BESIDE = "one core", "two cores", "two cores beside two busy programs"


def main() -> None:
    """Run everything in turns, then print the table."""
    options = parser(__doc__)
    options.add_argument("before", type=Path, help="a clone of the earlier commit")
    options.add_argument("now", type=Path, help="a clone of the commit to measure")
    options.add_argument("--rounds", type=at_least(1), default=2, help="turns of each")
    options.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="by default all")
    args = options.parse_args()
    shorten(args.before)
    shorten(args.now)
    works = [(stage, TWO, clone) for stage in args.stages for clone in (args.before, args.now)]
    works += [("train", ONE, args.before), ("train", ONE, args.now), ("train", BESIDE, args.now)]
    seconds: dict[tuple[str, str, Path], list[float]] = {work: [] for work in works}
    with progress(desc="cores", total=args.rounds * len(works), unit="turn") as bar:
        for _ in range(args.rounds):
            for stage, where, clone in works:
                seconds[stage, where, clone].append(measured(clone, stage, where))
                bar.update()
    median = {work: statistics.median(each) for work, each in seconds.items()}
    print("| stage | where | seconds before | now | speed, of before |\n| --- | --- | --- | --- | --- |")
    for stage, where, clone in works:
        if clone == args.before:
            before, now = median[stage, where, clone], median[stage, where, args.now]
            print(f"| `{stage}` | {where} | {before:.1f} | {now:.1f} | {before / now:.2f} |")
    if ("train", TWO, args.now) in median:
        alone, beside = (median["train", where, args.now] for where in (TWO, BESIDE))
        print(f"| `train` | {BESIDE} | | {beside:.1f} | {alone / beside:.2f} of alone |")


def shorten(clone: Path) -> None:
    """Write shorter params into a clone: those that it has."""
    yaml, path = YAML(), clone / "params.yaml"
    values = yaml.load(path)
    for name, value in SHORT.items():
        *sections, key = name.split(".")
        section = values
        for each in sections:
            section = section[each]
        if key in section:
            section[key] = value
    yaml.dump(values, path)


def measured(clone: Path, stage: str, where: str) -> float:
    """Run a stage in a clone, from the beginning; return its seconds."""
    count = "1" if where == ONE else "2"
    old = "matrix" in YAML(typ="safe").load(clone / "dvc.yaml")["stages"]["classifier"]
    variables = os.environ | ({"DDPM_THREADS": count} if old else {"DDPM_WORKERS": count})
    pin = ["taskset", "--cpu-list", "0"] if where == ONE else []
    names = [f"{stage} {item}" for item in "ab"] if old and stage == "classifier" else [stage]
    shutil.rmtree(clone / ".resume", ignore_errors=True)
    with busy(2 if where == BESIDE else 0):
        began = time.monotonic()
        for name in names:
            command = [*pin, sys.executable, "-m", *f"stages.{name}".split()]
            if subprocess.run(command, cwd=clone, env=variables, capture_output=True).returncode:
                raise UserError(f"{clone}: {name} failed")
        return time.monotonic() - began


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


if __name__ == "__main__":
    run(main)
