"""Say how far each cause moves the Frechet distance of digits: the table of causes.md.

    python -m studies.scores.causes

Needs a default run in the workspace. Scores subsets of its samples by the judge, in counts.csv, and prints the table,
from these rows, those of other studies, and metrics/. Distances are by classifier b or the judge, if nothing else is
said.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from ddpm.images.splits import load_samples, load_split
from ddpm.processes.device import start
from ddpm.scores.classifier import load_classifier
from ddpm.scores.comparisons import compare, draw_places
from ddpm.scores.evaluation import classify
from ddpm.scores.judges import judge_of
from exact_stages.console import progress, run
from scripts.publish import SEEDS, table
from studies.table import Table, rows_of

HERE, STUDIES, PROCESSED = Path("studies/scores"), Path("studies"), Path("data/processed")
STEPS = "../speed/step_scores.csv"
SCORES = Path("metrics/evaluate/scores.json")
COUNTS = (500, 1000, 2000, 5000, 10_000)


def main() -> None:
    """Add the rows of counts.csv that are not there, and print the table."""
    count()
    rows = [[*each[:2], ", ".join(f"[{Path(file).name}]({file})" for file in each[2:])] for each in causes()]
    print(table([["cause", "distance", "rows"], *rows]))


def count() -> None:
    """Score the first samples of the default run, with the classes of all, beside one reference."""
    table, runtime = Table(HERE / "counts.csv"), start()
    if all(table.has({"images": images}) for images in COUNTS):
        return
    train, test = (load_split(PROCESSED / f"{name}.safetensors") for name in ("train", "test"))
    samples = load_samples(Path("data/samples/filtered.safetensors"))
    judge = judge_of(train, samples.classes)
    assert judge, "the images are not MNIST"
    assert samples.labels is not None, "the default is class-conditional"
    classifier = load_classifier(judge.path)
    seen = [
        classify(classifier, *each, runtime) for each in ((samples.images, samples.labels), test.split, train.split)
    ]
    for images in progress(COUNTS, desc="count"):
        if not table.has({"images": images}):
            ours = samples.labels[:images]
            kept, passing = (torch.ones(len(each), dtype=torch.bool) for each in (ours, train.split.labels))
            places = draw_places(ours, test.split.labels, train.split.labels, kept, passing, 0, judge.reference)
            found = compare(seen[0].features[:images], seen[1].features, seen[2].features, places)["samples"]
            table.add({"images": images, **{name: f"{value:.4f}" for name, value in found.items()}})


def causes() -> Iterator[tuple[str, ...]]:
    """Yield each cause, the distances that it makes, and the files of the rows."""
    counts = pd.read_csv(HERE / "counts.csv").set_index("images")["frechet"]
    yield "number of samples", ", ".join(f"{images:,}: {value:.3f}" for images, value in counts.items()), "counts.csv"
    mix = rows_of(HERE / "rows")[0].groupby("mix")["frechet"].mean()
    yield "mix of classes, of real images", told(mix), "rows/mix.json"
    records = [f"{folder}/record.json" for folder in SEEDS]
    others = [json.loads(Path(each).read_bytes())["metrics"]["evaluate/scores"] for each in records]
    scores = json.loads(SCORES.read_bytes())
    seeds = pd.Series({seed: each["b"]["samples"]["frechet"] for seed, each in enumerate([scores, *others], 1)})
    yield "seed of training", told(seeds), f"../../{SCORES}", *(f"../../{each}" for each in records)
    noises = pd.read_csv(STUDIES / "samplers/spacing.csv").query("spacing == 'log_snr' and model == 'seed-4'")
    yield "noise of sampling; excess of 2,000 samples", told(noises.set_index("noise")["b"]), "../samplers/spacing.csv"
    steps = pd.read_csv(HERE / STEPS).query("commit == 'e510cc59'")
    both = steps.pivot(index="seed", columns="precision", values="frechet_b").dropna()
    of_seeds = {name: "/".join(f"{value:.3f}" for value in values) for name, values in both.items()}
    pairs = ", ".join(f"{name}: {values}" for name, values in of_seeds.items())
    yield f"precision, after a fifth of a training, seeds {'/'.join(map(str, both.index))}", pairs, STEPS
    rows, _ = rows_of(STUDIES / "samplers/rows")
    guided = rows.query("evaluations == 24").groupby("sampler")["frechet_excess"].apply(list)
    names = {"none": "DPM-Solver++", "the default": "DPM-Solver++, guided", "1.5": "DPM-Solver++, guided by 1.5"}
    of_guidance = {name: "/".join(f"{value:.3f}" for value in guided[each]) for name, each in names.items()}
    pairs = ", ".join(f"{name}: {values}" for name, values in of_guidance.items())
    files = [f"../samplers/rows/{seed}.json" for seed in rows["seed"].unique()]
    yield f"guidance; excess of 2,000 samples, seeds {'/'.join(map(str, rows['seed'].unique()))}", pairs, *files
    of_filter = {name: scores["b"][row]["frechet"] for name, row in (("before", "unfiltered"), ("after", "samples"))}
    yield "filter", told(pd.Series(of_filter)), f"../../{SCORES}"
    features = pd.Series({name: scores[name]["samples"]["frechet"] for name in ("a", "b", "pixels")})
    yield "features", told(features), f"../../{SCORES}"


def told(values: "pd.Series[float]") -> str:
    """Return values by name, in one line."""
    return ", ".join(f"{name}: {value:.3f}" for name, value in values.items())


if __name__ == "__main__":
    run(main)
