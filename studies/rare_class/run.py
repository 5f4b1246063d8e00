"""Run the study of rare classes on the workspace's set, and keep its rows in studies/rare_class/results/<set>/.

    python -m studies.rare_class.run

Run `dvc repro preprocess` on the set first. Each core has a process. Every model and every row is kept, so that an
interrupted run continues. Rows of other code, params or images are dropped.
"""

import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import psutil
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ddpm.compute.device import Runtime, start
from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.splits import Processed, Split, load_split
from ddpm.pictures.grids import EACH_CLASS, by_class_picture
from ddpm.scoring.copying import nearest_neighbours
from exact_stages.console import progress, run
from exact_stages.files import sha256, write_whole
from exact_stages.params import Section, load_params
from studies.arguments import at_least, parser
from studies.rare_class.generating import Recipe, Subset, fill_up, make_subset
from studies.rare_class.learning import METHODS, LearnParams, Method, augmentation, learn
from studies.table import Table
from studies.trainings import population_sampler

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
    """A subset and its generated images; `origin` hashes all else that determines them."""

    number: int
    origin: str

    @property
    def path(self) -> Path:
        """Return the file of the images."""
        return SCRATCH / f"{digest(*self)}.safetensors"


def main() -> None:
    """Compute what is missing: first the generated images, then the classifiers."""
    options = parser(__doc__)
    cores = psutil.cpu_count(logical=False) or 1
    options.add_argument("--processes", type=at_least(1), default=cores, help="by default one for each core")
    processes = options.parse_args().processes
    os.environ["DDPM_WORKERS"] = "1"
    params, train, *_ = loaded()
    folder, (origin, code) = HERE / "results" / train.card.name, fingerprints(params)
    jobs = [Job(number, origin) for number in range(0, 10, 10 // params.subsets.get(train.card.name, 5))]
    works = [(job, method, seed) for seed, job, method in itertools.product(SEEDS, jobs, METHODS)]
    generated, table = table_of(folder / "scores_generated.csv", origin), table_of(folder / "scores.csv", code)
    missing = [work for work in works if not table.has(row_of(*work))]
    unfinished = {job for job, *_ in missing}
    needed = [job for job in jobs if job in unfinished or not generated.has({"subset": job.number})]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else Ctrl-C would leave the processes running
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as workers:
        for rows in progress(workers.imap_unordered(generate, needed), desc="models and samples", total=len(needed)):
            generated.add(*({"code": origin, **row} for row in rows))
        for row in progress(workers.imap_unordered(classify, missing), desc="classifiers", total=len(missing)):
            table.add({"code": code, **row})
    if needed and jobs[0].path.exists() and len(generated_by(jobs[0]).labels):  # else every class was given up
        write_whole(folder / "samples.png", picture(jobs[0]))


def table_of(path: Path, code: str) -> Table:
    """Open a table without the rows of other code."""
    table = Table(path)
    known = [row for row in table.rows if row.get("code") == code]
    if dropped := len(table.rows) - len(known):
        print(f"note: {path}: {dropped} rows are of other code, params or images; they will be replaced")
    table.rows = known
    return table


def generate(job: Job) -> list[dict[str, Any]]:
    """Train on a subset, and fill up its classes; return a row for each class."""
    params, train, _, runtime = loaded()
    subset = subset_of(job.number)
    if not job.path.exists():
        model = SCRATCH / f"model-{digest(*job)}.safetensors"
        images, tallies = fill_up(subset, params.target, job.number, model, runtime)
        save_arrays(job.path, images._asdict(), {"tallies": [each._asdict() for each in tallies]})
    _, facts = load_arrays(job.path)
    described = zip(train.card.classes, subset.counts, facts["tallies"], strict=True)
    return [{"subset": job.number, "class": name, "images": count, **tally} for name, count, tally in described]


def classify(work: tuple[Job, Method, int]) -> dict[str, Any]:
    """Train one classifier; return its row, with the mean F1 of the classes of each count."""
    job, method, seed = work
    params, train, test, _ = loaded()
    subset, generated = subset_of(job.number), generated_by(job)
    extras = {"none": generated.take(slice(0)), "generated": generated, "real": like(generated.labels, subset.spare)}
    name, sides = train.card.name, tuple(train.card.shape[1:])
    change = augmentation(method.augment, name, sides, name in params.flips)
    real, extra = subset.kept.split, extras[method.extra]
    found = learn(real, extra, method, change, subset.pool, test.split, params.learn, seed)
    counts = torch.tensor(subset.counts)
    f1 = {f"f1_{count}": round(float(found.f1[counts == count].mean()), 5) for count in counts.unique().tolist()}
    return {**row_of(job, method, seed), "accuracy": round(found.accuracy, 5), **f1, "kept_step": found.kept_step}


def row_of(job: Job, method: Method, seed: int) -> dict[str, Any]:
    """Return what identifies a row."""
    return {"subset": job.number, **method._asdict(), "seed": seed}


def like(labels: Tensor, spare: Split) -> Split:
    """Take as many real images of each class as `labels` has."""
    classes = range(int(spare.labels.max()) + 1)
    rows = [(spare.labels == label).nonzero().flatten()[: int((labels == label).sum())] for label in classes]
    return spare.take(torch.cat(rows))


@functools.cache
def loaded() -> tuple[StudyParams, Processed, Processed, Runtime]:
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


def fingerprints(params: StudyParams) -> tuple[str, str]:
    """Hash what generated images depend on, and what the scores of classifiers depend on."""
    files = [PROCESSED / f"{split}.safetensors" for split in ("train", "test")]
    files += [HERE / "generating.py", Path("studies/trainings.py"), *library()]
    recipe = [each.model_dump(mode="json") for each in (load_params(Recipe), population_sampler())]
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


if __name__ == "__main__":
    run(main)
