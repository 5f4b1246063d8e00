"""Train on random subsets of the workspace's images, and score the samples, in studies/small_sets/.

    python -m benchmarks.small_sets --images 100 500 2000 --seeds 2
    python -m benchmarks.small_sets --changes model.channels=[32,64,128] train.epochs=85 --guidance 1 null

Run `dvc repro` on the set first: images and classifiers come from the workspace. Every row is saved at once. A row of
the same code, set, subset, changes and guidance is not computed again; rows of --real are. Frechet distances and the
two-sample test compare the samples with images of the whole set, near copies with the subset. A model that repeats the
subset's images has the distance frechet_b_of_subset.
"""

import argparse
import csv
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from dvc.utils.serialize import loads_yaml
from torch import Tensor

from benchmarks.arguments import at_least
from benchmarks.scoring import SEED, Scorer, channels_first
from benchmarks.trainings import left_by
from ddpm.cli.generate import sample_images
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import generator
from ddpm.images.splits import Processed, Split, load_split
from ddpm.model import LoadedModel
from ddpm.pictures.grids import by_class_picture
from ddpm.sample import sample_labels
from ddpm.sample import SamplerParams
from ddpm.scoring.copying import near_copies, nearness
from ddpm.train import EpochEnd, LossPoint
from ddpm.train import new_training, prepare
from exact_stages.console import UserError, progress, run
from exact_stages.files import write_whole
from exact_stages.params import parse, read_yaml
from stages.train import TRAIN, Params

OUT = Path("studies/small_sets")


def main() -> None:
    """Train and score what the table does not have."""
    args = arguments()
    for scale in args.guidance:
        sampler_with(scale)
    runtime, train = start(), load_split(TRAIN)
    scorer = Scorer(runtime)
    table = OUT / "scores.csv"
    rows: list[dict[str, Any]] = [*csv.DictReader(table.open())] if table.exists() else []
    tree = subprocess.run(["git", "rev-parse", "--short=12", "HEAD:src"], check=True, capture_output=True, text=True)
    for number in range(args.real):
        key = {"src_tree": tree.stdout.strip(), "set": train.card.name, "seed": number, "changes": "real test images"}
        images, labels = scorer.real(f"subset {number}", args.count or 2000)
        key |= {"images": len(images)}
        rows = [row for row in rows if any(str(row[name]) != str(key[name]) for name in key)]
        rows.append(key | scorer.frechet(images) | scorer.others(images, labels) | scorer.two_sample(images))
        save(table, rows)
    for seed in range(args.seeds):
        for count in args.images or [len(train.split.labels)]:
            key = {"src_tree": tree.stdout.strip(), "set": train.card.name, "images": count, "seed": seed}
            key["changes"] = " ".join(args.changes)
            known = {row["guidance"] for row in rows if all(str(row[name]) == str(key[name]) for name in key)}
            missing = [each for each in args.guidance if each not in known]
            if not missing:
                continue
            subset = subset_of(train, count, seed)
            loaded, facts = trained(subset, params_of(args.changes, seed), runtime)
            facts["frechet_b_of_subset"] = scorer.frechet(subset.split.images)["frechet_b"]
            for scale in missing:
                images, labels = sampled(loaded, scale, args.count or min(count, 2000), runtime)
                scores = scorer.frechet(images) | scorer.others(images, labels)
                scores |= {} if args.untold else scorer.two_sample(images)
                row = {**key, "guidance": scale} | facts | scores | copies(images, labels, subset.split, scorer.test)
                rows.append(row)
                save(table, rows)
                told = ("images", "changes", "guidance", "validation_loss", "frechet_b", "near_copies")
                print(*(f"{name} {row[name]}" for name in told), sep=", ")
                if args.pictures:
                    caption = f"{count:,} training images, guidance: {scale}"
                    picture = by_class_picture(images, labels, train.card.classes, caption)
                    write_whole(OUT / f"{train.card.name}-{count}.png", picture)


def save(table: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the table."""
    write_whole(table, pd.DataFrame(rows).to_csv(index=False).encode())


def subset_of(train: Processed, count: int, seed: int) -> Processed:
    """Choose `count` images at random; those of a near-duplicate's group stay together, or lose it."""
    if count > len(train.groups):
        raise UserError(f"--images: {count}, but {TRAIN} has {len(train.groups)}; lower it")
    rows = torch.randperm(len(train.groups), generator=generator(seed, "subset"))[:count].sort().values
    place = torch.full((len(train.groups),), -1).scatter_(0, rows, torch.arange(count))
    groups = place[train.groups[rows]]
    return train._replace(split=train.split.take(rows), groups=torch.where(groups < 0, torch.arange(count), groups))


def params_of(changes: Sequence[str], seed: int) -> Params:
    """Return the params of the workspace with changes such as train.epochs=60."""
    values = read_yaml(Path("params.yaml"))
    for change in changes:
        name, _, text = change.partition("=")
        section, _, key = name.partition(".")
        if section not in Params.model_fields or key not in values[section]:
            raise UserError(f"--changes: model, schedule and train have no {name}; name another")
        values[section][key] = loads_yaml(text)
    values["train"]["seed"] = seed
    return parse(Params, {name: values[name] for name in Params.model_fields}, "params.yaml")


def trained(subset: Processed, params: Params, runtime: Runtime) -> tuple[LoadedModel, dict[str, Any]]:
    """Train, and return the model with facts about the training."""
    setup = prepare(subset, params.model, params.train)
    start_from = Path(params.train.start)
    training = new_training(setup, params.schedule, None if start_from == TRAIN else start_from, runtime)
    began = time.perf_counter()
    with progress(desc=f"{len(subset.groups)} images", total=training.total_steps, unit="step") as bar:
        for event in training.run():
            bar.update(0 if isinstance(event, EpochEnd) else 1)
            if isinstance(event, LossPoint):
                bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
    facts = {
        "steps": training.total_steps,
        "ended": training.step,
        "kept_step": training.kept_step,
        "images_seen": training.step * setup.train.batch_size,
        "validation_loss": round(training.validation.best.loss, 5) if training.validation.best else None,
        "minutes": round((time.perf_counter() - began) / 60, 2),
        "threads": torch.get_num_threads(),
    }
    return left_by(training, setup, params.schedule), facts


def sampler_with(scale: str) -> SamplerParams:
    """Return the params of sample.population with this scale of guidance."""
    section = read_yaml(Path("params.yaml"))["sample"]["population"] | {"guidance": loads_yaml(scale)}
    known = {name: value for name, value in section.items() if name in SamplerParams.model_fields}
    return parse(SamplerParams, known, "--guidance")


def sampled(loaded: LoadedModel, scale: str, count: int, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Sample images, uint8 (count, C, H, W), and labels as sample.population does, with this scale of guidance."""
    params = sampler_with(scale)
    batches = sample_images(loaded, params, SEED, range(count), runtime)
    labels = sample_labels(loaded.card, params, SEED, range(count))
    return channels_first(torch.cat([images for _, images in batches])), labels


def copies(images: Tensor, labels: Tensor, subset: Split, test: Split) -> dict[str, float | None]:
    """Return the shares of samples that are near copies of images of the subset, in pixels."""
    found = near_copies(*(nearness(*each, subset.images, subset.labels) for each in ((images, labels), test)))
    return {"near_copies": found.distance, "near_copies_ratio": found.ratio}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=at_least(20), nargs="+", help="images of each subset; by default all")
    parser.add_argument("--seeds", type=at_least(1), default=1, help="number of subsets and training seeds")
    parser.add_argument("--changes", nargs="+", default=[], help="params of the sections model, schedule and train")
    parser.add_argument("--real", type=at_least(0), default=0, help="random subsets of test images to score as well")
    parser.add_argument("--guidance", nargs="+", default=["null"], help="scales; null chooses one")
    parser.add_argument("--count", type=at_least(100), help="samples; by default as many as images, at most 2,000")
    parser.add_argument("--untold", action="store_true", help="leave out the two-sample test, most of the time")
    parser.add_argument("--pictures", action="store_true", help="also draw samples by class")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
