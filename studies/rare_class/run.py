"""Run the study of rare classes: which methods help with few images of a class, and whether samples do.

    python -m studies.rare_class.run                # all three comparisons, hours
    python -m studies.rare_class.run choosing

It reads data/processed, which `dvc repro preprocess` makes, the pipeline's params.yaml and the study's own.
Intermediate results are kept in build/rare_class. A finished row is reused while params, code and inputs stay the same,
and an interrupted run continues. A complete comparison replaces the one in studies/rare_class/results, and its table is
printed.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.pipeline.console import progress, run
from ddpm.pipeline.files import write_json, write_whole
from studies.rare_class import tables
from studies.rare_class.comparing import compare
from studies.rare_class.dataset import processed_folder
from studies.rare_class.keeping import RESULTS, Facts, file_key, kept, key, read_rows
from studies.rare_class.params import NAMES, load
from studies.rare_class.subset import Images, Row, Setting, Subset

ORACLE = "nothing"  # method of the oracle


def main(names: Sequence[str]) -> None:
    """Run these comparisons one after the other, and print their tables."""
    params, pipeline = load()
    runtime = start()
    for name in names:
        folder = processed_folder(params.study(name).set, pipeline.data.set)
        train, test = (folder / f"{split}.safetensors" for split in ("train", "test"))
        images = Images(load_split(train), load_split(test), file_key(train), file_key(test))
        compute(name, Setting(params, pipeline, params.study(name), images, runtime))
        tables.main(RESULTS / name)


def compute(name: str, setting: Setting) -> None:
    """Compute the missing rows, then write the results if they have changed."""
    facts, path, study = about(name, setting), RESULTS / name / "rows.jsonl", setting.study
    before = read_rows(path) if path.exists() else []
    known = {row["key"]: row for row in before}
    subsets = {each: Subset(setting, each) for each in study.subsets}
    plan = [[*subset.rows()] for subset in subsets.values()] + [[*oracles(setting)]]
    picture, rows = subsets[study.picture].picture, []
    del subsets
    with progress(desc=name, total=sum(map(len, plan)), unit="row") as bar:
        while plan:
            for row in plan.pop(0):  # a subset's images are freed with its rows
                rows.append(known.get(row.key) or {**row.of, **kept(row.key, row.compute), "key": row.key})
                bar.update()
    if rows == before:
        return
    if picture.exists():
        write_whole(path.parent / "samples.png", picture.read_bytes())
    write_json(path.parent / "run.json", facts)
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows).encode())  # last: it completes the results


def oracles(setting: Setting) -> Iterator[Row]:
    """Yield the rows of classifiers that learn from all training images."""
    (train, test, *keys), learn = setting.images, setting.params.learn
    for seed in setting.study.oracle:
        given = (train, None, (), test.split, ORACLE, seed, learn, setting.runtime)
        of = {"of": "oracle", "method": ORACLE, "seed": seed}
        yield Row(of, key(compare, *keys, ORACLE, seed, learn), partial(compare, f"oracle {seed}", *given))


def about(name: str, setting: Setting) -> Facts:
    """Describe how the rows were made."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    common = {
        each: setting.params.model_dump(mode="json")[each] for each in ("validation_pool", "train", "sample", "learn")
    }
    pipeline = setting.pipeline.model_dump(mode="json", exclude={"data"})
    return {
        "commit": commit or None,
        "command": f"python -m studies.rare_class.run {name}",
        "date": datetime.now(UTC).date().isoformat(),
        **setting.runtime.describe(),
        "params": {name: setting.study.model_dump(mode="json"), **common},
        "pipeline": pipeline,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=[*NAMES, "all"], default="all", help="by default all of them")
    name = parser.parse_args().name
    run(partial(main, NAMES if name == "all" else [name]))
