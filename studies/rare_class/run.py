"""Run the study of rare classes on the workspace's set, and keep its rows in studies/rare_class/results/<set>/.

    python -m studies.rare_class.run

Run `dvc repro preprocess` on the set first. Each core has a process. Generated images and rows are kept, so that an
interrupted run continues. Rows of other code, params or images are dropped.
"""

import argparse
import functools
import hashlib
import itertools
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.splits import Split, SplitFile, load_split
from ddpm.pictures.grids import EACH_CLASS, by_class_picture
from ddpm.processes.device import Runtime, start
from ddpm.processes.workers import cores
from ddpm.scores.copying import nearest_neighbours
from exact_stages.console import progress, run
from exact_stages.files import sha256, write_whole
from exact_stages.params import Section, load_params
from studies.rare_class.generating import Subset, fill_up, make_subset
from studies.rare_class.learning import METHODS, LearnParams, Method, augmentation, learn
from studies.table import Table

HERE, SCRATCH, PROCESSED = Path("studies/rare_class"), Path("build/rare_class"), Path("data/processed")
SEEDS = range(3)


class StudyParams(Section):
    """Params of the study; studies/rare_class/params.yaml explains them."""

    counts: tuple[Annotated[int, Field(ge=2)], ...]
    target: PositiveInt
    pool: PositiveInt
    flips: tuple[str, ...]
    subsets: dict[str, Literal[5, 10]]
    learn: LearnParams


class Job(NamedTuple):
    """The number of a subset, and the file of its generated images."""

    number: int
    path: Path


def main() -> None:
    """Compute what is missing: first the generated images, then the classifiers."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    os.environ["DDPM_WORKERS"] = "1"
    params, train, *_ = loaded()
    folder, code = HERE / "results" / train.card.name, fingerprint()
    numbers = range(0, 10, 10 // params.subsets.get(train.card.name, 5))
    jobs = [Job(number, SCRATCH / code / f"{number}.safetensors") for number in numbers]
    generated, table = Table(folder / "scores_generated.csv"), Table(folder / "scores.csv")
    for each in (generated, table):
        if others := [row for row in each.rows if row["code"] != code]:
            print(f"{each.path}: {len(others)} rows are of other code, params or images, and will be replaced")
        each.rows = [row for row in each.rows if row["code"] == code]
    missing = [work for work in itertools.product(SEEDS, jobs, METHODS) if not table.has(row_of(*work))]
    unfinished = sorted({job for _, job, _ in missing})
    needed = [job for job in unfinished if not (job.path.exists() and generated.has({"subset": job.number}))]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else Ctrl-C would leave the processes running
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(cores(), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as workers:
        for rows in progress(workers.imap_unordered(generate, needed), desc="models and samples", total=len(needed)):
            generated.add(*({"code": code, **row} for row in rows))
        for row in progress(workers.imap_unordered(classify, missing), desc="classifiers", total=len(missing)):
            table.add({"code": code, **row})
    if jobs[0] in needed:
        write_whole(folder / "samples.png", picture(jobs[0]))


def generate(job: Job) -> list[dict[str, Any]]:
    """Train on a subset, and fill up its classes; return a row for each class."""
    params, train, _, runtime = loaded()
    subset = subset_of(job.number)
    images, tallies = fill_up(subset, params.target, job.number, runtime)
    save_arrays(job.path, images._asdict())
    described = zip(train.card.classes, subset.counts, tallies, strict=True)
    return [
        {"subset": job.number, "class": name, "images": count, **tally._asdict()} for name, count, tally in described
    ]


def classify(work: tuple[int, Job, Method]) -> dict[str, Any]:
    """Train one classifier; return its row, with the mean F1 of the classes of each count."""
    seed, job, method = work
    params, train, test, _ = loaded()
    subset, generated = subset_of(job.number), generated_by(job)
    extras = {"none": generated.take(slice(0)), "generated": generated, "real": like(generated.labels, subset.spare)}
    name, sides = train.card.name, tuple(train.card.shape[1:])
    change = augmentation(method.augment, name, sides, name in params.flips)
    real, extra = subset.kept.split, extras[method.extra]
    found = learn(real, extra, method, change, subset.pool, test.split, params.learn, seed)
    counts = torch.tensor(subset.counts)
    f1 = {f"f1_{count}": round(float(found.f1[counts == count].mean()), 5) for count in counts.unique().tolist()}
    return {**row_of(*work), "accuracy": round(found.accuracy, 5), **f1, "kept_step": found.kept_step}


def row_of(seed: int, job: Job, method: Method) -> dict[str, Any]:
    """Return what identifies a row."""
    return {"subset": job.number, **method._asdict(), "seed": seed}


def like(labels: Tensor, spare: Split) -> Split:
    """Take as many real images of each class as `labels` has."""
    classes = range(int(spare.labels.max()) + 1)
    rows = [(spare.labels == label).nonzero().flatten()[: int((labels == label).sum())] for label in classes]
    return spare.take(torch.cat(rows))


@functools.cache
def loaded() -> tuple[StudyParams, SplitFile, SplitFile, Runtime]:
    """Load params and images, once in each process, and let torch be deterministic."""
    train, test = (load_split(PROCESSED / f"{split}.safetensors") for split in ("train", "test"))
    return load_params(StudyParams, path=HERE / "params.yaml"), train, test, start()


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


def fingerprint() -> str:
    """Hash what rows depend on: images, params, the library, and how the study uses it."""
    files = [*PROCESSED.glob("*.safetensors"), *Path("src/ddpm").rglob("*.py"), Path("params.yaml")]
    files += [HERE / name for name in ("params.yaml", "generating.py", "learning.py")]
    return hashlib.sha256("".join(map(sha256, sorted(files))).encode()).hexdigest()[:12]


if __name__ == "__main__":
    run(main)
