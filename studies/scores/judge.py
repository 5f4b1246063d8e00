"""Ask whether a classifier that learned the reference favours it: rows of studies/scores/judge.csv.

    DDPM_PRECISION=portable DDPM_WORKERS=1 python -m studies.scores.judge

Each classifier learns MNIST's training images but a sixth, another one for each seed; they are kept in models/. As
`evaluate` does, it compares sets of equal label counts with the reference, the images that it learned: some 10,000
that it never saw, test images, and five sets of those that it learned, which are left out of the reference. A row is
saved at once, and not computed again.
"""

import argparse
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from ddpm.cli.reading import read_real
from ddpm.images.fetching import fetch
from ddpm.images.splits import SplitFile, held_out_mask
from ddpm.params.data import DataParams
from ddpm.processes.device import Runtime, start
from ddpm.scores.classifier import Classifier, Recipe, features_and_logits, load_classifier, save_classifier
from ddpm.scores.comparisons import Rows, compare, draw_places
from ddpm.scores.fit import fit_classifiers
from exact_stages.console import run
from studies.table import Table

TABLE, MODELS = Path("studies/scores/judge.csv"), Path("models")
UNSEEN = 1 / 6
TRAININGS = [(0, 32), (1, 32), (2, 24)]  # seeds, and channels of the first level
AS_THEY_ARE = {"image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}


def main() -> None:
    """Compute the rows that the table lacks."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--real", type=Path, default=Path("data/mnist"), help="folder for the four files")
    real = options.parse_args().real
    runtime, table = start(), Table(TABLE)
    print(fetch("mnist", real))
    found = read_real(real, DataParams.model_validate({"set": str(real), **AS_THEY_ARE}))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    facts = {"commit": commit, "date": f"{datetime.now(UTC):%Y-%m-%d}", **runtime.describe()}
    for seed, channels in TRAININGS:
        key = {"seed": seed, "channels": channels}
        if not table.has(key):
            unseen = held_out_mask(found.train.split, found.train.groups, UNSEEN, seed)
            model = trained(found.train, unseen, Recipe(images_seen=180_000, seed=seed, channels=channels), runtime)
            for name, row in rows(model, found.train, unseen, found.test, runtime).items():
                table.add(key | {"set": name} | {each: f"{value:.5f}" for each, value in row.items()} | facts)
                print(name, row, flush=True)


def trained(train: SplitFile, unseen: torch.Tensor, recipe: Recipe, runtime: Runtime) -> Classifier:
    """Train a classifier on the images that are not `unseen`, unless models/ has it."""
    file = MODELS / f"judge-{recipe.seed}-{recipe.channels}.safetensors"
    if not file.is_file():
        [model] = fit_classifiers(file.stem, [(train.split.take(~unseen), recipe)], train.card, runtime)
        save_classifier(file, model.cpu())
    return load_classifier(file)


def rows(model: Classifier, train: SplitFile, unseen: torch.Tensor, test: SplitFile, runtime: Runtime) -> Rows:
    """Return the distances of unseen, learned and test images, and their excess over learned ones."""
    features, test_features = (
        features_and_logits(model, each.split.images, runtime.device)[0] for each in (train, test)
    )
    labels, seen = train.split.labels, ~unseen
    every = torch.ones(int(unseen.sum()), dtype=torch.bool), torch.ones(int(seen.sum()), dtype=torch.bool)
    places = draw_places(labels[unseen], test.split.labels, labels[seen], *every, model.recipe.seed)
    found = compare(features[unseen], test_features, features[seen], places)
    counts = {"samples": len(places["samples"][0]), "real": len(places["real"][0]), "test": len(places["test"][0])}
    names = {"samples": "unseen", "real": "learned", "test": "test"}
    return {name: {"images": counts[key], **found[key]} for key, name in names.items()}


if __name__ == "__main__":
    run(main)
