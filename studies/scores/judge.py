"""Ask whether a classifier that learned the reference favours it, and make the judges: see studies/scores/README.md.

    python -m studies.scores.judge learned                  # images that it never saw beside those that it learned
    python -m studies.scores.judge verdict --samples FILE   # samples by classifiers of other seeds and widths
    python -m studies.scores.judge make                     # write the judges to src/ddpm/pretrained/judges

All run with DDPM_PRECISION=portable. models/ keeps each classifier. As `evaluate` does, it compares sets of equal label
counts with one reference. Rows of judge.csv are saved at once, and not computed again.
"""

import argparse
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.cli.reading import Real, named, read_real
from ddpm.images.splits import Split, load_samples
from ddpm.params.data import DataParams
from ddpm.processes.device import Runtime, start
from ddpm.scores.classifier import Classifier, Recipe, features_and_logits, load_classifier, save_classifier
from ddpm.scores.comparisons import MOST_COMPARED, compare, counts_of, draw_places, first_of_each
from ddpm.scores.fit import fit_classifiers
from ddpm.scores.judges import JUDGES, evened, halves
from exact_stages.console import run
from exact_stages.files import sha256
from scripts.publish import pack
from studies.table import Table

TABLE, MODELS = Path("studies/scores/judge.csv"), Path("models")
LENGTH = 180_000
AS_THEY_ARE = {"image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}


class Training(NamedTuple):
    """A training by its set, seed and width, on one half of the images."""

    data: str
    seed: int
    channels: int
    judge: str = ""

    @property
    def file(self) -> Path:
        """Return where the classifier is kept."""
        return MODELS / f"judge-{'-'.join(map(str, self))}.safetensors"

    def classifier(self, real: Real, runtime: Runtime) -> Classifier:
        """Return the classifier that is kept, or train it."""
        if not self.file.is_file():
            recipe = Recipe(images_seen=LENGTH, seed=self.seed, channels=self.channels)
            images = real.train.split.take(halves(real.train))
            [model] = fit_classifiers(self.file.stem, [(images, recipe)], real.train.card, runtime)
            save_classifier(self.file, model.cpu())
        return load_classifier(self.file)


TRAININGS = [
    Training("mnist", 1, 32, "mnist-b-1"),
    Training("fashion_mnist", 1, 32, "fashion-b-1"),
    Training("mnist", 2, 24),
]


def main() -> None:
    """Compute the rows that the table lacks, or write the judges."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("part", choices=["learned", "verdict", "make"])
    options.add_argument("--samples", type=Path, nargs="*", default=[], help="verdict: files of MNIST's digits")
    args = options.parse_args()
    runtime, table = start(), Table(TABLE)
    for training in TRAININGS:
        if args.part == "make":
            if training.judge:
                make(training, runtime)
            continue
        for row in rows(training, args.samples if args.part == "verdict" else [None], table, runtime):
            table.add(row | facts(runtime))
            print(row, flush=True)


def facts(runtime: Runtime) -> dict[str, str | int]:
    """Return what a row says of the commit, the date and the machine."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return {"commit": commit[:12], "date": f"{datetime.now(UTC):%Y-%m-%d}", **runtime.describe()}


def rows(training: Training, samples: list[Path | None], table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Compare sets with those that a classifier learned: samples, beside its unseen half, or unseen images.

    Unseen images and samples have the mix of all: another one, by chance, has a distance of its own.
    """
    named_by = training._asdict() | {"judge": training.judge or "none"}
    keys = {file: named_by | {"set": file.stem if file else "unseen"} for file in samples}
    if all(map(table.has, keys.values())) or (samples != [None] and training.data != "mnist"):
        return
    real = read(training.data)
    model, learned = training.classifier(real, runtime), halves(real.train)
    train = real.train.split
    for file, key in keys.items():
        sampled = load_samples(file) if file else None
        if sampled is None or sampled.labels is None:
            ours = train.take(~learned)
        else:
            ours = Split(sampled.images, sampled.labels)
        reference = train.take(evened(train.labels, ~learned if file else learned))
        wanted = (train.labels.bincount() * (MOST_COMPARED / len(train.labels))).long()
        kept = torch.zeros(len(ours.labels), dtype=torch.bool)
        kept[first_of_each(ours.labels, counts_of(wanted, ours.labels.bincount()))] = True
        for name, row in measured(model, ours, reference, real.test.split, kept, runtime).items():
            yield key | {"set": key["set"] if name == "samples" else f"{name}, beside {key['set']}"} | row


def measured(
    model: Classifier, ours: Split, train: Split, test: Split, kept: Tensor, runtime: Runtime
) -> dict[str, dict[str, object]]:
    """Return distances and excesses, and how many images each row has."""
    samples, new, known = (features_and_logits(model, each.images, runtime.device)[0] for each in (ours, test, train))
    every = torch.ones(len(train.labels), dtype=torch.bool)
    places = draw_places(ours.labels, test.labels, train.labels, kept, every, model.recipe.seed)
    places.pop("unfiltered"), places.pop("real_filtered")
    found = compare(samples, new, known, places)
    return {
        name: {"images": len(places[name][0]), **{key: f"{value:.5f}" for key, value in row.items()}}
        for name, row in found.items()
    }


def read(data: str) -> Real:
    """Return a set by its name."""
    folder = named(Path(data))
    return read_real(folder, DataParams.model_validate({"set": str(folder), **AS_THEY_ARE}))


def make(training: Training, runtime: Runtime) -> None:
    """Write a judge in float16, by its name and the first digits of its hash."""
    training.classifier(read(training.data), runtime)
    new = JUDGES / f"{training.judge}.safetensors"
    pack(training.file, new)
    print(new.rename(new.with_stem(f"{training.judge}-{sha256(new)[:8]}")))


if __name__ == "__main__":
    run(main)
