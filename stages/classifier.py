"""Train the classifiers `a` and `b`; the scores use the features of both, which depend only on the data."""

from pathlib import Path

from ddpm.images.splits import load_split
from ddpm.params.classifier import ClassifierParams
from ddpm.processes.device import start
from ddpm.scores.classifier import NAMES, Recipe, accuracy, save_classifier
from ddpm.scores.fit import fit_classifiers, training_images
from exact_stages.files import write_json
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

PROCESSED = Path("data/processed")
MODELS = Path("models")
METRICS = Path("metrics/classifier")


class Params(Sections):
    """The params of this stage."""

    classifier: ClassifierParams


def main(stage: Stage) -> None:
    """Train on the images that are not held out, then test; a set with one class has no test accuracy."""
    length = stage.params(Params).classifier.images_seen
    runtime = start()
    train, test = (load_split(stage.input(PROCESSED / f"{split}.safetensors")) for split in ("train", "test"))
    recipes = [Recipe(images_seen=length, seed=seed) for seed in range(len(NAMES))]
    trainings = [(training_images(train, recipe), recipe) for recipe in recipes]
    for name, model in zip(NAMES, fit_classifiers("classifiers", trainings, train.card, runtime), strict=True):
        found = round(accuracy(model, *test.split, runtime.device), 6) if model.knows_classes else None
        save_classifier(stage.output(MODELS / f"classifier-{name}.safetensors"), model.cpu())
        parameters = sum(weight.numel() for weight in model.parameters())
        facts = {"test_accuracy": found, "parameters": parameters, "made_in": runtime.name}
        write_json(stage.output(METRICS / f"{name}.json"), facts)


if __name__ == "__main__":
    run_stage("classifier", main)
