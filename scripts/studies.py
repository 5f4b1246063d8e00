"""Remake the rows of studies that are stale, and their tables; `make studies` runs this.

    python -m scripts.studies [QUESTION] [--dry]

QUESTION is a folder of studies/; --dry only says which stages are stale and why. After a kill, run it again.
"""

import argparse
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joblib import cpu_count
from ruamel.yaml import YAML

from ddpm.images.starts import SCRATCH
from exact_stages.commands import reasons
from exact_stages.console import UserError, run, some
from exact_stages.declared import Declared
from exact_stages.files import read_yaml, write_whole
from exact_stages.provenance import flat

STUDIES, PARAMS = Path("studies"), Path("params.yaml")
PIPELINE, DEFAULT, RATES = STUDIES / "dvc.yaml", STUDIES / "default.yaml", STUDIES / "rates.json"
SECTIONS = ("schedule", "model", "train", "sample")  # of params.yaml that studies begin from


def main() -> None:
    """Say what is stale and how long it takes, run it, and put its tables into the pages."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("question", nargs="?", default="")
    options.add_argument("--dry", action="store_true")
    args = options.parse_args()
    renew(args.dry)
    declared = Declared()
    names = [name for name in declared.stages if declared.file(name) == PIPELINE and of(name, args.question)]
    if not names:
        raise UserError(f"{PIPELINE}: no stage of {args.question}")
    stale = {name: found for name, found in reasons(declared).items() if name in names}
    print("\n".join(f"{name}: {reason}" for name, found in stale.items() for reason in found) or "all: up to date")
    if stale:
        minutes = core_minutes([declared.stages[name] for name in stale])
        here = minutes / cpu_count(only_physical_cores=True)
        print(f"{len(stale)} stages, {minutes:.0f} core-minutes: {here:.0f} minutes here", flush=True)
    if stale and not args.dry:
        targets = [declared.stages[name].addressing for name in stale]
        if subprocess.run([sys.executable, "-m", "dvc", "repro", *targets]).returncode:
            raise UserError("studies: not all rows are made; run it again, which continues")
    if not args.dry:
        for page in STUDIES.glob("*/*.md"):
            write_page(page)


def of(name: str, question: str) -> bool:
    """Tell whether a stage is of a question: recipe and recipe_table are of the recipe."""
    return f"{name.partition('@')[0]}_".startswith(f"{question}_" if question else "")


def renew(dry: bool) -> None:
    """Take the recipe that studies begin from out of params.yaml, but in a dry run only say how that differs."""
    now = {name: values for name, values in read_yaml(PARAMS).items() if name in SECTIONS}
    now["train"] = now["train"] | {"fine_tune_from": SCRATCH}  # not what was chosen for the images of the workspace
    now["sample"] = {key: value for key, value in now["sample"].items() if key not in ("model", "preview")}
    before = read_yaml(DEFAULT) if DEFAULT.is_file() else {}
    if now == before:
        return
    new, old = flat(now), flat(before)
    other = [name for name in {**new, **old} if new.get(name) != old.get(name)]
    print(
        f"{DEFAULT}: not {PARAMS}'s {some(other)}{': a run takes these, and trains all again' if dry else '; renewed'}"
    )
    if not dry:
        text = io.StringIO("# The recipe that studies begin from, which `make studies` takes from params.yaml.\n")
        text.seek(0, io.SEEK_END)
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.dump(now, text)
        write_whole(DEFAULT, text.getvalue().encode())


def core_minutes(stages: Sequence[Any]) -> float:
    """Return how long stages take one core like that on which the rates were measured."""
    if not RATES.is_file():
        raise UserError(f"{RATES}: no such file; `python -m studies.rates` measures it")
    rates, total = json.loads(RATES.read_bytes()), 0.0
    for meta in [stage.meta for stage in stages if stage.meta]:
        each = meta["core_minutes"] + meta.get("samples", 0) / rates["samples"] / 60
        total += rates["start"] / 60 + len(f"{meta['runs']}".split(",")) * each
    return total


def write_page(page: Path) -> None:
    """Put tables between `<!-- from FILE -->` and `<!-- end -->`."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{(page.parent / match[2]).read_text()}\n<!-- end -->"

    text = page.read_text()
    if (filled := re.sub(r"(<!-- from (\S+\.md) -->).*?<!-- end -->", part, text, flags=re.DOTALL)) != text:
        write_whole(page, filled.encode())


if __name__ == "__main__":
    run(main)
