"""Train on photographs and icons for minutes to hours of two cores, and score samples by guidance.

    python -m studies.small_sets.night photos-10 icons-10 photos-60       # names of TRAININGS

data/cifar10 and data/icons come from `studies.small_sets.sets`. A training is that of the stage `train` with a fixed
length, and ends early as there, when the validation loss no longer falls. After a kill, run it again. Rows are added
to night.csv, and pictures to night/: two samples of each class at the guidance that the model chooses, and real images.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import torch

from ddpm.cli.reading import read_real
from ddpm.diffusion.glimpses import png
from ddpm.diffusion.training import new_training
from ddpm.images.splits import Split, SplitFile
from ddpm.params.data import DataParams
from ddpm.params.sample import fitted
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import Runtime, start
from ddpm.processes.world import ALONE
from exact_stages.console import run
from exact_stages.files import write_whole
from stages.train import Params
from studies.scores.judge import AS_THEY_ARE, facts
from studies.small_sets.starts import FOLDER, Scores, facts_of, params_of, sampled
from studies.subsets import copies, subset_of
from studies.table import Table
from studies.trainings import WITHOUT_END, scored_sampler
from studies.trials import kept

ROWS, PICTURES, SEED, SAMPLES = FOLDER / "night.csv", FOLDER / "night", 1, 2000
GUIDANCES = (1.0, 1.3, 1.5)  # those of a short and of a long training, and of one from clip art
EACH = 2  # samples of each class in a picture


class Length(NamedTuple):
    """A training: its images, how many of them are drawn at random, what it begins with, its length, and width."""

    images: str
    size: int | None
    begun: str
    images_seen: int
    wider: int = 1


# Images seen: 370 a second of two cores, 113 at twice the width, as measured once.
TRAININGS = {
    "photos-10": Length("data/cifar10", 10_000, "scratch", 222_000),
    "photos-60": Length("data/cifar10", 10_000, "scratch", 1_332_000),
    "photos-150": Length("data/cifar10", 10_000, "scratch", 3_330_000),
    "photos-180-wide": Length("data/cifar10", 10_000, "scratch", 1_220_000, wider=2),
    "icons-10": Length("data/icons", None, "clip art", 222_000),
    "icons-40": Length("data/icons", None, "clip art", 888_000),
}


def main() -> None:
    """Train, sample and score what the table does not have."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="+", choices=TRAININGS)
    runtime, table = start(), Table(ROWS)
    for name in options.parse_args().names:
        if not all(table.has({"training": name, "guidance": each}) for each in GUIDANCES):
            make(name, TRAININGS[name], runtime, table)


def make(name: str, length: Length, runtime: Runtime, table: Table) -> None:
    """Make the rows of a training, and its picture."""
    data = DataParams.model_validate({"set": length.images, **AS_THEY_ARE})
    found = read_real(Path(length.images), data, like_preprocess=True)
    train = subset_of(found.train, length.size, SEED) if length.size else found.train
    params = wide(params_of(length.begun, SEED, length.images_seen), train, length.wider)
    training = new_training(train, params.schedule, params.model, params.train, runtime)
    made_of = [name, *(each.model_dump(mode="json") for each in (train.card, params))]
    key = hashlib.sha256(json.dumps([*made_of, facts(runtime) | {"date": ""}]).encode()).hexdigest()
    with Checkpoints(f"night-{name}", key, ALONE, training=training) as checkpoints:
        checkpoints.run(name, training)
        checkpoints.save()
    loaded = kept(training, runtime)
    of_curve = {step: round(loss, 5) for step, loss in training.curves.rows["validation"]}  # held-out images
    of_training = {
        "training": name,
        "images": len(train.groups),
        **facts_of(training),
        "noise_loss": of_curve[training.kept_step],
        "noise_loss_at_end": of_curve[training.step],
        "parameters": training.summary()["parameters"],
        "guidance_chosen": fitted(scored_sampler(), loaded.card).guidance,
    }
    scores = Scores(found, runtime)
    for guidance in GUIDANCES:
        samples = sampled(loaded, guidance, SAMPLES, runtime)
        row = {**of_training, "guidance": guidance, **scores.of(samples, test=True)}
        table.add(row | copies(samples, train, found) | facts(runtime))
        print(*(f"{key} {row[key]}" for key in ("training", "guidance", "frechet_b", "c2st")), flush=True)
    samples = sampled(loaded, of_training["guidance_chosen"], SAMPLES, runtime)
    for picture, shown in ((name, samples), (found.train.card.name, found.train.split)):
        write_whole(PICTURES / f"{picture}.png", png(of_each_class(shown)))


def wide(params: Params, train: SplitFile, factor: int) -> Params:
    """Return the params with channels that are wider by a factor."""
    model = params.model.for_images(train.card.shape)
    assert model.channels
    model = model.model_copy(update={"channels": tuple(factor * each for each in model.channels)})
    of_train = params.train.model_copy(update={"epochs": WITHOUT_END})
    return params.model_copy(update={"model": model, "train": of_train})


def of_each_class(samples: Split) -> torch.Tensor:
    """Return the first samples of each class, one row for each of EACH: (EACH, classes, C, H, W)."""
    rows = [(samples.labels == label).nonzero()[:EACH, 0] for label in samples.labels.unique()]
    return samples.images[torch.stack(rows, dim=1)]


if __name__ == "__main__":
    run(main)
