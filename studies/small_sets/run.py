"""Train on random subsets of the workspace's images, and score the samples, in studies/small_sets/.

    python -m studies.small_sets.run --images 100 500 2000 --seeds 0 1
    python -m studies.small_sets.run --changes model.channels=[32,64,128] train.epochs=85 --guidance 1 null
    python -m studies.small_sets.run --images 300 --changes --changes train.fine_tune_from=data/start.safetensors

The last one compares the params of the workspace with changed ones, on the same subsets.

Run `dvc repro` on the set first: images and classifiers come from the workspace. Every row is saved at once. A row of
the same code, set, subset, changes and guidance is not computed again. Frechet distances and the
two-sample test compare the samples with images of the whole set, near copies with the subset.
"""

import argparse
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from dvc.utils.serialize import loads_yaml
from torch import Tensor

from ddpm.compute.device import start
from ddpm.compute.randomness import generator
from ddpm.images.splits import Processed, Split, load_split
from ddpm.pictures.figures import captioned, enlarged, image_png, tile
from ddpm.scoring.copying import compare_nearness, middle, shifted
from ddpm.training.run import Training
from exact_stages.console import UserError, run
from exact_stages.files import read_yaml, write_whole
from exact_stages.params import parse
from stages.train import TRAIN, Params
from studies.arguments import at_least, parser
from studies.scoring import Scorer, sampled
from studies.table import Table
from studies.trainings import population_sampler, trained

OUT = Path("studies/small_sets")
COLUMNS = 16  # of the pictures


def main() -> None:
    """Train and score what the table does not have."""
    args = arguments()
    samplers = {scale: population_sampler(guidance=loads_yaml(scale)) for scale in args.guidance}
    runtime, train = start(), load_split(TRAIN)
    scorer = Scorer(runtime)
    table, command = Table(OUT / "scores.csv"), ["git", "rev-parse", "--short=12", "HEAD:src"]
    tree = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    for number in range(args.real):
        images, labels = scorer.real(f"subset {number}", args.count or 2000)
        key = {"src_tree": tree, "set": train.card.name, "images": len(images), "seed": number}
        key["changes"] = "real test images"
        if not table.has(key):
            table.add(key | scorer.scores(images, labels))
    for seed in args.seeds:
        for count in args.images or [len(train.split.labels)]:
            subset = subset_of(train, count, seed)
            made = {"real": subset.split.images}
            for changes in args.changes or [[]]:
                key = {"src_tree": tree, "set": train.card.name, "images": count, "seed": seed}
                key["changes"] = " ".join(changes)
                missing = [each for each in args.guidance if not table.has(key | {"guidance": each})]
                if not missing:
                    continue
                began = time.perf_counter()
                loaded, training = trained(subset, params_of(changes, seed), runtime, f"{count} images")
                facts = facts_of(training) | {"minutes": round((time.perf_counter() - began) / 60, 2)}
                for scale in missing:
                    images, labels = sampled(loaded, samplers[scale], args.count or min(count, 2000), runtime)
                    scores = scorer.scores(images, labels) | copies(images, labels, subset.split, scorer.test)
                    row = {**key, "guidance": scale} | facts | scores
                    table.add(row)
                    told = ("images", "changes", "guidance", "validation_loss", "frechet_b", "near_copies")
                    print(*(f"{name} {row[name]}" for name in told), sep=", ")
                    made[f"{key['changes'] or 'default'}, guidance: {scale}"] = images
            if args.pictures and len(made) > 1:
                write_whole(OUT / f"{train.card.name}-{count}-{seed}.png", side_by_side(made))


def side_by_side(made: Mapping[str, Tensor]) -> bytes:
    """Draw the first of each set of images, uint8 (N, C, H, W), above its name."""
    rows = (tile(images[: 2 * COLUMNS], COLUMNS) for images in made.values())
    return image_png(torch.cat([captioned(enlarged(row, 2), name) for row, name in zip(rows, made, strict=True)], 1), 1)


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


def facts_of(training: Training) -> dict[str, Any]:
    """Return the facts about a training that the table has."""
    return {
        "steps": training.total_steps,
        "ended": training.step,
        "kept_step": training.kept_step,
        "images_seen": training.step * training.params.batch_size,
        "validation_loss": round(training.best.loss, 5) if training.best else None,
        "threads": torch.get_num_threads(),
    }


def copies(images: Tensor, labels: Tensor, subset: Split, test: Split) -> dict[str, float | None]:
    """Return the shares of samples that are near copies of images of the subset, in pixels."""
    both = (shifted(images), labels), (shifted(test.images), test.labels)
    found, *_ = compare_nearness(*both, (middle(subset.images), subset.labels), 0)
    return {"near_copies": found.distance.value, "near_copies_ratio": found.ratio.value}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    options.add_argument("--images", type=at_least(20), nargs="+", help="images of each subset; by default all")
    options.add_argument("--seeds", type=at_least(0), nargs="+", default=[0], help="of the subset and of training")
    options.add_argument(
        "--changes", nargs="*", action="append", help="params of the sections model, schedule and train; repeatable"
    )
    options.add_argument("--real", type=at_least(0), default=0, help="random subsets of test images to score as well")
    options.add_argument("--guidance", nargs="+", default=["null"], help="scales; null chooses one")
    options.add_argument("--count", type=at_least(100), help="samples; by default as many as images, at most 2,000")
    options.add_argument("--pictures", action="store_true", help="also draw samples, each column of one noise")
    return options.parse_args()


if __name__ == "__main__":
    run(main)
