"""Train classifiers on samples and on equally many real images, and test them on real images."""

from pathlib import Path

from ddpm.images.splits import load_samples, load_split
from ddpm.params.classification_accuracy_score import ClassificationAccuracyScoreParams
from ddpm.processes.device import start
from ddpm.scores.accuracy_score import accuracy_score
from ddpm.scores.classifier import load_classifier
from exact_stages.files import write_json
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

PROCESSED = Path("data/processed")
FILTERED = Path("data/samples/filtered.safetensors")
CLASSIFIER = Path("models/classifier-b.safetensors")
METRICS = Path("metrics/classification_accuracy_score")


class Params(Sections):
    """The params of this stage."""

    classification_accuracy_score: ClassificationAccuracyScoreParams


def main(stage: Stage) -> None:
    """Write the accuracies."""
    most = stage.params(Params).classification_accuracy_score.count
    runtime = start()
    classifier_b = load_classifier(stage.input(CLASSIFIER))
    samples = load_samples(stage.input(FILTERED))
    train, test = (load_split(stage.input(PROCESSED / f"{name}.safetensors")) for name in ("train", "test"))
    scores = accuracy_score((samples.images, samples.labels), samples.classes, train, test, classifier_b, most, runtime)
    write_json(stage.output(METRICS / "accuracy.json"), {**scores, "made_in": runtime.name})


if __name__ == "__main__":
    run_stage("classification_accuracy_score", main)
