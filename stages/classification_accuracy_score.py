"""The classification accuracy score: what a new classifier learns from samples (Ravuri and Vinyals, arXiv:1905.10887).

Samples have the labels that were asked for, or, of a model that is told no class, those that classifier b gives them.
The new classifier is tested on real test images, beside one that learned from as many real images with true labels. Of
either there are several, from different seeds: one alone would move by more than what is often to be told apart.
Where there is but one class, or one alone is drawn, there is no such score.
"""

import statistics
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from ddpm.classifier.fit import fit_classifier
from ddpm.classifier.model import ClassifierParams, accuracy, features_and_logits, load_classifier
from ddpm.compute.device import start
from ddpm.compute.randomness import generator
from ddpm.images.splits import Split, load_samples, load_split
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Section, Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.scoring.scores import likeliest

PROCESSED = Path("data/processed")
FILTERED = Path("data/samples/filtered.safetensors")
CLASSIFIER = Path("models/classifier-b.safetensors")
METRICS = Path("metrics/classification_accuracy_score")


class ClassificationAccuracyScoreParams(Section):
    """From how many images is learned, at most, and how often."""

    count: Annotated[int, Field(ge=2)]
    classifiers: Annotated[int, Field(ge=1, le=100)]


class Params(Sections):
    """What this stage reads."""

    classification_accuracy_score: ClassificationAccuracyScoreParams


def main(stage: Stage) -> None:
    """Learn from samples and from real images, in turn; test on the real test images of the classes trained on."""
    params = stage.params(Params).classification_accuracy_score
    runtime = start()
    judge = load_classifier(stage.input(CLASSIFIER))
    population, data, facts = load_samples(stage.input(FILTERED))
    splits = {name: load_split(stage.input(PROCESSED / f"{name}.safetensors")) for name in ("train", "test")}
    if len(facts["classes"]) == 1:
        write_json(stage.output(METRICS / "accuracy.json"), {"count": 0, "samples": None, "real": None})
        return
    train, test = (splits[name].of(facts["classes"]) for name in ("train", "test"))
    count = min(params.count, len(population["images"]), len(train.images))
    samples = population["images"][:count]
    asked = population.get("labels")
    if asked is None:
        labels = likeliest(features_and_logits(judge, samples, runtime.device)[1], facts["classes"])
    else:
        labels = asked[:count]
    recipe = new_recipe(judge.params, judge.params.epochs_of(len(splits["train"].split.labels)), count)
    found: dict[str, list[float]] = {"samples": [], "real": []}
    for number in range(params.classifiers):
        new = recipe.model_copy(update={"seed": (recipe.seed + number) % 2**63})
        source = generator(recipe.seed, "classification accuracy score", number)
        real = train.take(torch.randperm(len(train.images), generator=source)[:count])
        for name, images in (("samples", Split(samples, labels)), ("real", real)):
            learned = fit_classifier(
                f"learn from {name}, {number + 1} of {params.classifiers}", images, data, new, runtime
            )
            found[name].append(accuracy(learned, *test, runtime.device))
    rows: dict[str, dict[str, float | str]] = {name: mean_and_deviation(each) for name, each in found.items()}
    rows["samples"]["labels"] = "classifier b" if asked is None else "asked for"
    write_json(stage.output(METRICS / "accuracy.json"), {"count": count, "classifiers": params.classifiers, **rows})


def mean_and_deviation(accuracies: list[float]) -> dict[str, float | str]:
    """Of several classifiers' accuracies; of one there is no deviation."""
    row: dict[str, float | str] = {"accuracy": round(statistics.mean(accuracies), 6)}
    if len(accuracies) > 1:
        row["accuracy_deviation"] = round(statistics.stdev(accuracies), 6)
    return row


def new_recipe(judge: ClassifierParams, epochs: int, count: int) -> ClassifierParams:
    """As classifier b was trained, for as many epochs, but from another seed."""
    return judge.model_copy(update={"seed": (judge.seed + 1) % 2**63, "epochs": epochs, "images": epochs * count})


if __name__ == "__main__":
    run_stage("classification_accuracy_score", main)
