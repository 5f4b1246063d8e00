"""Train on few photographs from scratch and from clip art, and score samples by guidance, in studies/small_sets/.

    python -m studies.small_sets.starts --count 500 --subsets 1 2 3 --guidances 1 1.25 1.5 2
    python -m studies.small_sets.starts --count 500 --subsets 4 5 6 --guidances 1 1.25 1.5 2     # report
    python -m studies.small_sets.starts --count 300 1000 3000 --subsets 1 2 3 --guidances 1 1.5

data/photos comes from `studies.small_sets.sets`. A training is that of the stage `train`, on a random subset with the
subset's number as its seed. Rows are saved at once, and not computed again. Processes side by side need a --table each.

Distances compare with the whole set, by classifiers that `ddpm score` trains on it and keeps; the two-sample test is
at 8 levels, by network b. Seconds are of the processor.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import torch

from ddpm.cli.reading import Real, read_real
from ddpm.cli.score import trained as classifiers_of
from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.sets import sample_images, sample_labels
from ddpm.diffusion.training import Training
from ddpm.images.splits import Split
from ddpm.images.starts import CLIP_ART, SCRATCH
from ddpm.params.data import DataParams
from ddpm.params.sample import fitted
from ddpm.processes.device import Runtime, start
from ddpm.scores.c2st import quantised, run_c2st
from ddpm.scores.classifier import load_classifier
from ddpm.scores.comparisons import compare
from ddpm.scores.evaluation import Classified, Sets, classify, draw_rows
from exact_stages.console import run
from exact_stages.params import load_params
from stages.train import Params
from studies.scores.judge import AS_THEY_ARE, facts
from studies.subsets import subset_of
from studies.table import Table
from studies.trainings import scored_sampler, trained

FOLDER, PHOTOS = Path("studies/small_sets"), Path("data/photos")
STARTS = {"scratch": SCRATCH, "clip art": CLIP_ART}
TESTED = (1.0, 1.5)  # guidances at which the two-sample test is made
SAMPLES, SEED, NETWORK, LEVELS = 2000, 1, "b", 8


def main() -> None:
    """Train, sample and score what the table does not have."""
    args = arguments()
    runtime, table = start(), Table(args.table)
    real = read_real(args.set, DataParams.model_validate({"set": str(args.set), **AS_THEY_ARE}))
    scores = Scores(real, runtime)
    for count in args.count:
        for number in args.subsets:
            subset = subset_of(real.train, count, number)
            for begun in args.starts:
                key = {"set": real.train.card.name, "images": count, "subset": number, "begun": begun}
                missing = [each for each in args.guidances if not table.has(key | {"guidance": each})]
                if not missing:
                    continue
                begin = seconds()
                loaded, training = trained(subset, params_of(begun, number, args.images_seen), runtime, str(key))
                of_training = {**facts_of(training), "train_seconds": seconds(begin)}
                for guidance in missing:
                    begin = seconds()
                    samples = sampled(loaded, guidance, args.samples, runtime)
                    row = {**key, "guidance": guidance, **of_training, "sample_seconds": seconds(begin)}
                    begin = seconds()
                    row |= scores.of(samples, test=guidance in TESTED)
                    table.add({**row, "score_seconds": seconds(begin), **facts(runtime)})
                    print(*(f"{name} {row[name]}" for name in (*key, "guidance", "frechet_b", "c2st")), flush=True)


class Scores:
    """The real images as both classifiers see them, to which samples are compared."""

    def __init__(self, real: Real, runtime: Runtime) -> None:
        self.runtime = runtime
        self.classes = [*range(len(real.train.card.classes))]
        self.classifiers = {name: load_classifier(path) for name, path in classifiers_of(real.train, runtime).items()}
        self.real = {
            name: [classify(each, *split, runtime) for split in (real.test.split, real.train.split)]
            for name, each in self.classifiers.items()
        }

    def of(self, samples: Split, test: bool) -> dict[str, Any]:
        """Score samples against the whole set, and beside as many real images; `test`: with the two-sample test."""
        seen = {
            name: Sets(classify(each, *samples, self.runtime), *self.real[name])
            for name, each in self.classifiers.items()
        }
        places = draw_rows(seen["a"], torch.ones(len(samples.labels), dtype=torch.bool), self.classes)
        row: dict[str, Any] = {"samples": len(places["samples"][0])}
        for name, sets in seen.items():
            found = compare(*sets.features, places)
            row |= {f"{key}_{name}": f"{value:.4f}" for key, value in found["samples"].items()}
            row[f"frechet_{name}_of_real_test"] = f"{found['test']['frechet']:.4f}"
        row["conditional_accuracy"] = f"{share_as_asked(seen['b'].samples):.4f}"
        rows = seen["a"].drawn(places)
        ours, others = (quantised(rows[name].images, LEVELS) for name in ("samples", "real"))
        accuracy = run_c2st(ours, others, NETWORK, 0, self.runtime).accuracy if test else None
        return row | {
            "c2st": f"{accuracy.value:.4f}" if accuracy else "",
            "c2st_error": f"{accuracy.error:.4f}" if accuracy else "",
        }


def share_as_asked(samples: Classified) -> float:
    """Return the share of samples that are seen as the class that was asked for."""
    assert samples.given is not None
    return float((samples.labels == samples.given).double().mean())


def params_of(begun: str, seed: int, images_seen: int | None) -> Params:
    """Return the params of the workspace with this start and seed."""
    params = load_params(Params)
    changes = {"fine_tune_from": STARTS[begun], "seed": seed} | ({"images_seen": images_seen} if images_seen else {})
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def sampled(loaded: LoadedModel, guidance: float, count: int, runtime: Runtime) -> Split:
    """Sample as params.yaml samples the set `scored`."""
    sampler = fitted(scored_sampler(guidance=guidance), loaded.card)
    images = [each for _, each in sample_images(loaded, sampler, SEED, range(count), runtime)]
    return Split(torch.cat(images), sample_labels(loaded.card, sampler, SEED, range(count)))


def facts_of(training: Training) -> dict[str, Any]:
    """Return the facts about a training that the table has."""
    return {
        "steps": training.total_steps,
        "ended": training.step,
        "kept_step": training.kept_step,
        "images_seen": training.step * training.params.batch_size,
        "validation_loss": round(training.best.loss, 5) if training.best else "",
    }


def seconds(begin: float = 0) -> float:
    """Return the seconds of processors since `begin`, of this process and its workers."""
    return round(sum(os.times()[:4]) - begin, 1)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, nargs="+", default=[500], help="images of a subset")
    options.add_argument("--subsets", type=int, nargs="+", default=[1, 2, 3], help="their numbers")
    options.add_argument("--guidances", type=float, nargs="+", default=[1.0, 1.25, 1.5, 2.0])
    options.add_argument("--starts", nargs="+", choices=STARTS, default=[*STARTS])
    options.add_argument("--samples", type=int, default=SAMPLES, help="of each guidance")
    options.add_argument("--images-seen", type=int, help="length of a training; by default as in params.yaml")
    options.add_argument("--set", type=Path, default=PHOTOS, help="the real images")
    options.add_argument("--table", type=Path, default=FOLDER / "starts.csv", help="file of the rows")
    return options.parse_args()


if __name__ == "__main__":
    run(main)
