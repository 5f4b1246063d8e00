"""Keep the samples that show their class best, by classifier a."""

from pathlib import Path

import torch

from ddpm.images.splits import load_samples, load_split, save_samples
from ddpm.params.filter import FilterParams
from ddpm.processes.device import start
from ddpm.scores.classifier import held_out, load_classifier
from ddpm.scores.filtering import filtered, report
from exact_stages.console import UserError
from exact_stages.files import write_json
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

SAMPLES = Path("data/samples")
TRAIN = Path("data/processed/train.safetensors")
CLASSIFIER = Path("models/classifier-a.safetensors")
METRICS = Path("metrics/filter")


class Params(Sections):
    """The params of this stage."""

    filter: FilterParams


def main(stage: Stage) -> None:
    """Filter the samples; write the kept ones and their shares, in total and for each class."""
    least = stage.params(Params).filter.least_probability
    runtime = start()
    classifier = load_classifier(stage.input(CLASSIFIER))
    samples = load_samples(stage.input(SAMPLES / "scored.safetensors"))
    card = samples.card
    if (card.shape, card.classes) != (classifier.data.shape, classifier.data.classes):
        raise UserError(
            f"sample.model: it samples {card.name} of shape {card.shape}, but the classifiers know "
            f"{classifier.data.name} of shape {classifier.data.shape}; name a model of the same images and classes"
        )
    train = load_split(stage.input(TRAIN))
    real = train.split.take(held_out(train) & torch.isin(train.split.labels, torch.tensor(samples.classes)))
    kept, summary = filtered(samples, real, classifier, least, runtime)
    save_samples(stage.output(SAMPLES / "filtered.safetensors"), kept)
    share = {} if least is not None else {"filter.least_probability": f"clearest {summary['share']:.1%}"}
    write_json(stage.output(METRICS / "summary.json"), {**summary, "chosen": share, "made_in": runtime.name})
    print("\n".join(report(summary)))


if __name__ == "__main__":
    run_stage("filter", main)
