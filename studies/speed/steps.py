"""Measure the seconds of each stage in each precision.

    python -m studies.speed.steps

`dvc repro` runs in a clone of the last commit with a tenth of the default run's images, once in each of PRECISIONS.
Adds rows to stages.csv, and prints a table of them with their ratios.
"""

import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from ddpm.processes.device import start
from ddpm.processes.workers import cores
from exact_stages.console import UserError, progress, run
from studies.scores.judge import facts
from studies.table import Table

FOLDER, ROOT = Path(__file__).parent, Path(__file__).parents[2]
PRECISIONS = ("bfloat16", "float32", "portable")
TENTH = {"classifier.images_seen": 18_000, "train.images_seen": 33_000, "sample.scored.count": 1_040}


def main() -> None:
    """Run all stages in each precision, add a row for each with its seconds, with the time in which DVC hashes."""
    here = {"cores": cores(), **facts(start())}
    here.pop("device")
    table, rows = Table(FOLDER / "stages.csv"), list[dict[str, object]]()
    for precision in progress(PRECISIONS, desc="stages", unit="run"):
        with checkout() as place:
            tenth(place / "params.yaml")
            seconds = of_stages(place, precision)
        rows += [{"precision": precision, "stage": name, "seconds": round(each, 1)} for name, each in seconds.items()]
        table.add(*({**here, **row} for row in rows if row["precision"] == precision))
    found = (
        pd.DataFrame(rows).pivot(index="stage", columns="precision", values="seconds").loc[[*seconds], [*PRECISIONS]]
    )
    found.loc["all"] = found.sum()
    ratios = {f"{name}, ratio": found[name] / found[PRECISIONS[0]] for name in PRECISIONS[1:]}
    print(found.assign(**ratios).round(2).to_string())


@contextmanager
def checkout() -> Iterator[Path]:
    """Give the path of the last commit in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "checkout")
        worktree = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*worktree, "add", "--quiet", "--detach", str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run([*worktree, "remove", "--force", str(place)], check=True)


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
