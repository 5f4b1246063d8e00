"""Score the samples by the features of both classifiers."""

from pathlib import Path

from ddpm.images.splits import load_samples, load_split
from ddpm.processes.device import start
from ddpm.scores.classifier import NAMES
from ddpm.scores.evaluation import evaluate
from ddpm.scores.filtering import those_kept
from ddpm.scores.judges import judge_of
from exact_stages.files import write_json
from exact_stages.stage import Stage, run_stage

PROCESSED = Path("data/processed")
SAMPLES = Path("data/samples")
MODELS = Path("models")
JUDGES = Path("src/ddpm/pretrained/judges")
METRICS = Path("metrics/evaluate")


def main(stage: Stage) -> None:
    """Score the samples before and after the filter."""
    runtime = start()
    samples, filtered = (load_samples(stage.input(SAMPLES / f"{name}.safetensors")) for name in ("scored", "filtered"))
    classes = samples.classes
    test, train = (load_split(stage.input(PROCESSED / f"{name}.safetensors")) for name in ("test", "train"))
    judge = judge_of(train, classes, stage.input(JUDGES))
    classifiers = {name: stage.input(MODELS / f"classifier-{name}.safetensors") for name in NAMES}
    kept = those_kept(samples.images, filtered.images)
    both, new, known = (samples.images, samples.labels), test.of(classes), train.of(classes)
    found = evaluate(both, new, known, classes, classifiers, runtime, kept=kept, judge=judge)
    write_json(stage.output(METRICS / "scores.json"), found.scores | {"made_in": runtime.name})


if __name__ == "__main__":
    run_stage("evaluate", main)
