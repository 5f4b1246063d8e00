"""The classification accuracy score: what a new classifier learns from samples (Ravuri and Vinyals, arXiv:1905.10887).

Samples have the labels that were asked for, or, of a model that is told no class, those that classifier b gives them.
The new classifier is tested on real test images, beside one that learned from as many real images with true labels.
Where there is but one class, there is no such score.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from ddpm.data.splits import Split, load_samples, load_split
from ddpm.networks.classifier import ClassifierParams, accuracy, features_and_logits, load_classifier
from ddpm.runtime.device import start
from ddpm.runtime.files import write_json
from ddpm.runtime.params import Section, Sections
from ddpm.runtime.randomness import generator
from ddpm.runtime.stage import Stage, run_stage
from ddpm.training.classifier import fit_classifier

PROCESSED = Path("data/processed")
POPULATION = Path("data/samples/population.safetensors")
CLASSIFIER = Path("models/classifier-b.safetensors")
METRICS = Path("metrics/classification_accuracy_score")


class ClassificationAccuracyScoreParams(Section):
    """From how many images is learned, at most."""

    count: Annotated[int, Field(ge=2)]


class Params(Sections):
    """What this stage reads."""

    classification_accuracy_score: ClassificationAccuracyScoreParams


def main(stage: Stage) -> None:
    """Learn from samples, then from real images; test both on the real test images of the classes trained on."""
    params = stage.params(Params).classification_accuracy_score
    runtime = start()
    judge = load_classifier(stage.input(CLASSIFIER))
    population, data, facts = load_samples(stage.input(POPULATION))
    splits = {name: load_split(stage.input(PROCESSED / f"{name}.safetensors")) for name in ("train", "test")}
    if not judge.knows_classes:
        write_json(stage.output(METRICS / "accuracy.json"), {"count": 0, "samples": None, "real": None})
        return
    train, test = (splits[name].of(facts["classes"]) for name in ("train", "test"))
    count = min(params.count, len(population["images"]), len(train.images))
    samples = population["images"][:count]
    asked = population.get("labels")
    labels = features_and_logits(judge, samples, runtime.device)[1].argmax(1) if asked is None else asked[:count]
    recipe = new_recipe(judge.params, judge.params.epochs_of(len(splits["train"].split.labels)), count)
    order = torch.randperm(len(train.images), generator=generator(recipe.seed, "classification accuracy score"))
    scores: dict[str, dict[str, float | str]] = {}
    for name, source in (("samples", Split(samples, labels)), ("real", train.take(order[:count]))):
        learned = fit_classifier(f"learn from {name}", source, data, recipe, runtime)
        scores[name] = {"accuracy": round(accuracy(learned, *test, runtime.device), 6)}
    scores["samples"]["labels"] = "classifier b" if asked is None else "asked for"
    write_json(stage.output(METRICS / "accuracy.json"), {"count": count, **scores})


def new_recipe(judge: ClassifierParams, epochs: int, count: int) -> ClassifierParams:
    """As classifier b was trained, for as many epochs, but from another seed."""
    return judge.model_copy(update={"seed": (judge.seed + 1) % 2**63, "epochs": epochs, "images": epochs * count})


if __name__ == "__main__":
    run_stage("classification_accuracy_score", main)
