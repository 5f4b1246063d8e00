"""Compare the two spacings of timesteps on MNIST: lone specks, distance and C2ST, by equal models and noise.

    python -m studies.samplers.spacing --noises 1 2 3 seed-4.safetensors seed-5.safetensors seed-6.safetensors

Needs a default run in the workspace, for the images and classifier b. Adds rows to spacing.csv, and prints means of the
differences, paired by model and noise. By the rule for black, a level that real images hardly have becomes 0.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ddpm.diffusion.model import load_model
from ddpm.diffusion.sets import sample_images, sample_labels
from ddpm.images.splits import Split, load_split
from ddpm.params.sample import fitted
from ddpm.processes.device import Runtime, start
from ddpm.processes.workers import map_shards
from ddpm.scores.c2st import quantised, run_c2st
from ddpm.scores.classifier import load_classifier
from ddpm.scores.comparisons import compare, draw_places
from ddpm.scores.distances import Estimate
from ddpm.scores.evaluation import classify
from ddpm.scores.specks import has_specks
from exact_stages.console import run
from studies.table import Table
from studies.trainings import scored_sampler

OUT, PROCESSED = Path("studies/samplers/spacing.csv"), Path("data/processed")
CLASSIFIER = Path("models/classifier-b.safetensors")
SPACINGS = ("trailing", "log_snr")


def main() -> None:
    """Compute the rows that the table does not have."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", type=Path, nargs="+")
    options.add_argument("--noises", type=int, nargs="+", default=[1, 2, 3], help="seeds of the noise")
    options.add_argument("--count", type=int, default=4000, help="samples")
    args = options.parse_args()
    table, runtime = Table(OUT), start()
    train, test = (load_split(PROCESSED / f"{name}.safetensors").split for name in ("train", "test"))
    for model in args.models:
        for noise in args.noises:
            key = {"model": model.stem, "noise": noise, "count": args.count}
            if not table.has(key):
                found = {spacing: sampled(model, spacing, noise, args.count, runtime) for spacing in SPACINGS}
                for row in scored(found, train, test, noise, runtime):
                    table.add(key | row)
                    print(key | row, flush=True)
    rows = pd.read_csv(OUT).set_index(["model", "noise", "spacing"]).drop(columns="count")
    print(rows.groupby("spacing").mean().T.round(4).to_string())
    differences = rows.groupby(["model", "noise"]).diff().dropna()  # each log_snr follows its trailing
    print("log_snr less trailing", differences.agg(["mean", "min", "max"]).T.round(4).to_string(), sep="\n")


def sampled(model: Path, spacing: str, noise: int, count: int, runtime: Runtime) -> tuple[Split, float]:
    """Sample without the rule for black, and apply it, as the sampler does; return also the share of specks before."""
    loaded = load_model(model, runtime.device)
    black, loaded = loaded.card.faint, loaded._replace(card=loaded.card.model_copy(update={"faint": 0}))
    params = fitted(scored_sampler(spacing=spacing), loaded.card)
    parts = sample_images(loaded, params, noise, range(count), runtime, f"{model.stem}, {spacing}")
    images = torch.cat([part for _, part in parts])
    labels = sample_labels(loaded.card, params, noise, range(count))
    return Split(images.masked_fill(images <= black, 0), labels), has_specks(images).double().mean().item()


def scored(
    found: dict[str, tuple[Split, float]], train: Split, test: Split, seed: int, runtime: Runtime
) -> Iterator[dict[str, str]]:
    """Score both sets beside the same real images."""
    classifier = load_classifier(CLASSIFIER)
    of_train, of_test = (classify(classifier, *each, runtime).features for each in (train, test))
    for spacing, ((images, labels), without_rule) in found.items():
        kept, passing = (torch.ones(len(each), dtype=torch.bool) for each in (labels, train.labels))
        places = draw_places(labels, test.labels, train.labels, kept, passing, seed)
        ours, real = images[places["samples"][0]], train.images[places["real"][0]]
        distance = compare(classify(classifier, images, labels, runtime).features, of_test, of_train, places)["samples"]
        eight, two = map_shards(partial(tell, ours, real, seed, runtime), [8, 2])
        values = {
            "specks": has_specks(ours).double().mean().item(),
            "specks_without_rule": without_rule,
            "c2st_8": eight.value,
            "c2st_2": two.value,
            "c2st_2_error": two.error,
            "b": distance["frechet_excess"],
            "b_error": distance["frechet_excess_error"],
        }
        yield {"spacing": spacing} | {name: f"{value:.4f}" for name, value in values.items()}


def tell(ours: Tensor, real: Tensor, seed: int, runtime: Runtime, levels: int) -> Estimate:
    """Return the accuracy of a two-sample test of images of few levels."""
    return run_c2st(quantised(ours, levels), quantised(real, levels), "a", seed, runtime).accuracy


if __name__ == "__main__":
    run(main)
