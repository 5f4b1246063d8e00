"""Run the study of rare classes on the workspace's set, and keep its rows in studies/rare_class/results/<set>/.

    python -m studies.rare_class.run                                         # ten subsets, on the test images
    python -m studies.rare_class.run --choose --changes sampler.guidance=2   # two others, on the validation pool

Run `dvc repro preprocess` on the set first. Each core has a process. Every model and every row is kept, so that an
interrupted run continues. Rows of other code, params or images are dropped.
"""

import argparse
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import psutil
import torch
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import Tensor

from benchmarks.arguments import at_least
from ddpm.compute.device import Runtime, start
from ddpm.images.splits import Processed, Split, load_split
from ddpm.pictures.grids import EACH_CLASS, by_class_picture
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError, progress, run
from ddpm.pipeline.files import write_json, write_whole
from ddpm.pipeline.params import Section, load_params
from ddpm.pipeline.process import sha256
from ddpm.scoring.copying import nearest_neighbours
from studies.rare_class.generating import fill_up, read_recipe
from studies.rare_class.learning import METHODS, LearnParams, Method, learn
from studies.rare_class.subset import Subset, make_subset
from studies.rare_class.tables import read_rows

HERE, SCRATCH, PROCESSED = Path("studies/rare_class"), Path("build/rare_class"), Path("data/processed")
CHOOSING, SEEDS = (100, 101), range(3)
CHOSEN_BY = [Method("oversample", "none", extra) for extra in ("none", "generated")]
CHOSEN_BY += [Method("oversample", "generic", extra) for extra in ("none", "generated", "half")]


class StudyParams(Section):
    """Params of the study; studies/rare_class/params.yaml explains them."""

    counts: tuple[Annotated[int, Field(ge=2)], ...]
    target: Annotated[int, Field(ge=1)]
    pool: Annotated[int, Field(ge=1)]
    flips: tuple[str, ...]
    subsets: dict[str, Literal[5, 10]]
    learn: LearnParams


class Job(NamedTuple):
    """A subset with the generated images that one setting gives; `origin` hashes all else that determines them."""

    number: int
    changes: tuple[str, ...]
    origin: str

    @property
    def path(self) -> Path:
        """Return the file of the images."""
        return SCRATCH / f"{digest(*self)}.safetensors"


def main() -> None:
    """Compute what is missing: first the generated images, then the classifiers."""
    args = arguments()
    params, train = read_params(), load_split(PROCESSED / "train.safetensors")
    changes, folder = tuple(args.changes), HERE / "results" / train.card.name
    if changes and not args.choose:
        raise UserError("--changes: needs --choose; to test them, edit params.yaml")
    read_recipe(parsed(changes))  # complain now
    origin, code = fingerprints(params)
    numbers = CHOOSING if args.choose else range(0, 10, 10 // params.subsets.get(train.card.name, 5))
    jobs = [Job(number, changes, origin) for number in numbers]
    methods, name = (CHOSEN_BY, "choosing") if args.choose else (METHODS, "scores")
    works = [(job, method, seed, args.choose) for seed, job, method in itertools.product(SEEDS, jobs, methods)]
    generated, table = Table(folder / f"{name}_generated.csv", origin), Table(folder / f"{name}.csv", code)
    missing = [each for each in works if not table.has(row_of(*each[:3]))]
    needed = [job for job in jobs if not generated.has(of(job)) or any(work[0] == job for work in missing)]
    os.environ["DDPM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else Ctrl-C would leave the processes running
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(args.processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as workers:
        for rows in progress(workers.imap_unordered(generate, needed), desc="models and samples", total=len(needed)):
            generated.add(rows)
        for row in progress(workers.imap_unordered(classify, missing), desc="classifiers", total=len(missing)):
            table.add([row])
    if needed and not args.choose:
        if jobs[0].path.exists():
            write_whole(folder / "samples.png", picture(jobs[0]))
        facts = {"command": "python -m studies.rare_class.run", "date": datetime.now(UTC).date().isoformat()}
        write_json(
            folder / "run.json", facts | {"code": code, **start().describe(), "params": params.model_dump(mode="json")}
        )


class Table:
    """Rows in a csv file, written after every addition; rows of other code are dropped."""

    def __init__(self, path: Path, code: str) -> None:
        self.path, self.code = path, code
        rows = read_rows(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame({"code": []})
        known = rows[rows["code"] == code].to_dict("records")
        self.rows = [{str(key): value for key, value in row.items()} for row in known]
        if dropped := len(rows) - len(known):
            print(f"note: {path}: {dropped} rows are of other code, params or images; they will be replaced")

    def has(self, row: dict[str, Any]) -> bool:
        """Tell whether a row has these values."""
        return any(all(each[key] == str(value) for key, value in row.items()) for each in self.rows)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add the rows that are not there, and write the file."""
        self.rows += [{"code": self.code, **row} for row in rows if not self.has(row)]
        write_whole(self.path, pd.DataFrame(self.rows).astype(str).to_csv(index=False).encode())


def generate(job: Job) -> list[dict[str, Any]]:
    """Train on a subset, and fill up its classes; return a row for each class."""
    params, train, _, runtime = loaded()
    subset = subset_of(job.number)
    if not job.path.exists():
        recipe = read_recipe(parsed(job.changes))
        model = (
            SCRATCH / f"model-{digest(job.origin, job.number, recipe.model_dump_json(exclude={'sampler'}))}.safetensors"
        )
        images, tallies = fill_up(subset, params.target, recipe, job.number, model, runtime)
        save_arrays(job.path, images._asdict(), {"tallies": [each._asdict() for each in tallies]})
    _, facts = load_arrays(job.path)
    described = zip(train.card.classes, subset.counts, facts["tallies"], strict=True)
    return [{**of(job), "class": name, "images": count, **tally} for name, count, tally in described]


def classify(work: tuple[Job, Method, int, bool]) -> dict[str, Any]:
    """Train one classifier; return its row, with the mean F1 of the classes of each count."""
    job, method, seed, choose = work
    params, train, test, _ = loaded()
    subset, generated = subset_of(job.number), generated_by(job)
    extra = {"none": generated.take(slice(0)), "real": like(generated.labels, subset.spare)}.get(
        method.extra, generated
    )
    flips, scored = train.card.name in params.flips, subset.pool if choose else test.split
    data = (subset.kept.split, extra, method, train.card.name, flips, subset.pool, scored)
    found = learn(*data, params.learn, seed)
    counts = torch.tensor(subset.counts)
    f1 = {f"f1_{count}": round(float(found.f1[counts == count].mean()), 5) for count in counts.unique().tolist()}
    return {**row_of(job, method, seed), "accuracy": round(found.accuracy, 5), **f1, "kept_step": found.kept_step}


def of(job: Job) -> dict[str, Any]:
    """Return what identifies the rows of generated images."""
    return {"changes": " ".join(job.changes), "subset": job.number}


def row_of(job: Job, method: Method, seed: int) -> dict[str, Any]:
    """Return what identifies a row."""
    changes = job.changes if method.extra in ("generated", "half") else ()
    return {"changes": " ".join(changes), "subset": job.number, **method._asdict(), "seed": seed}


def like(labels: Tensor, spare: Split) -> Split:
    """Take as many real images of each class as `labels` has."""
    classes = range(int(spare.labels.max()) + 1)
    rows = [(spare.labels == label).nonzero().flatten()[: int((labels == label).sum())] for label in classes]
    return spare.take(torch.cat(rows))


@functools.cache
def loaded() -> tuple[StudyParams, Processed, Processed, Runtime]:
    """Load params and images, once in each process, and let torch be deterministic."""
    train, test = (load_split(PROCESSED / f"{split}.safetensors") for split in ("train", "test"))
    return read_params(), train, test, start()


@functools.lru_cache(1)
def subset_of(number: int) -> Subset:
    """Return a subset of the training images."""
    params, train, *_ = loaded()
    return make_subset(train, params.counts, params.pool, params.target, number)


@functools.lru_cache(1)
def generated_by(job: Job) -> Split:
    """Load the generated images."""
    arrays, _ = load_arrays(job.path, {"images", "labels"})
    return Split(**arrays)


def picture(job: Job) -> bytes:
    """Draw real images, generated ones and the real ones nearest to them, of a class of each count."""
    subset, generated = subset_of(job.number), generated_by(job)
    rows, names = list[Tensor](), list[str]()
    for label in sorted(generated.labels.unique().tolist(), key=subset.counts.__getitem__)[::2]:
        real, sampled = (each.images[each.labels == label] for each in (subset.kept.split, generated))
        sampled = sampled[:EACH_CLASS]
        rows += [real[:EACH_CLASS], sampled, real[nearest_neighbours(sampled, real).nearest]]
        names += [f"{subset.kept.card.classes[label]}: {each}" for each in ("real", "sampled", "nearest")]
    of_rows = torch.arange(len(rows)).repeat_interleave(torch.tensor([*map(len, rows)]))
    return by_class_picture(torch.cat(rows), of_rows, names, "generated images, and real ones of their classes")


def read_params() -> StudyParams:
    """Read the params of the study."""
    return load_params(StudyParams, path=HERE / "params.yaml")


def parsed(changes: Sequence[str]) -> dict[str, Any]:
    """Parse changes such as sampler.guidance=2.

    Raises:
        UserError: a change has another form.
    """
    found = {}
    for change in changes:
        name, _, text = change.partition("=")
        try:
            found[name] = YAML(typ="safe").load(text)
        except YAMLError:
            text = ""
        if not text:
            raise UserError(f"--changes {change}: give a param and a value, such as sampler.guidance=2")
    return found


def fingerprints(params: StudyParams) -> tuple[str, str]:
    """Hash what generated images depend on, and what the scores of classifiers depend on."""
    files = [PROCESSED / f"{split}.safetensors" for split in ("train", "test")]
    files += [HERE / "subset.py", HERE / "generating.py", *library()]
    recipe = read_recipe({}).model_dump(mode="json")
    origin = digest(recipe, params.counts, params.target, params.pool, [sha256(path) for path in files])
    return origin, digest(origin, sha256(HERE / "learning.py"), params.flips, params.learn.model_dump(mode="json"))


def library() -> list[Path]:
    """Return the files of the library that the study imports and that can change its results."""
    rest = ("ddpm.pictures", "ddpm.pipeline")
    names = sorted(name for name in sys.modules if name.startswith("ddpm.") and not name.startswith(rest))
    return [Path(file) for file in (sys.modules[name].__file__ for name in names) if file]


def digest(*facts: object) -> str:
    """Hash JSON-compatible facts."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="score on the validation pool, with two other subsets")
    parser.add_argument("--changes", nargs="+", default=[], help="of params, such as sampler.guidance=2")
    cores = psutil.cpu_count(logical=False) or 1
    parser.add_argument("--processes", type=at_least(1), default=cores, help="by default one for each core")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
