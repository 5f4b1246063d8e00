"""Keep, of the population, the images that classifier a takes for the class that was asked for."""

from pathlib import Path

from ddpm.classifier.model import load_classifier
from ddpm.compute.device import start
from ddpm.images.splits import load_samples
from ddpm.judging.filtering import FilterParams, filtered, report
from ddpm.pipeline.arrays import save_arrays
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, run_stage

SAMPLES = Path("data/samples")
CLASSIFIER = Path("models/classifier-a.safetensors")
METRICS = Path("metrics/filter")


class Params(Sections):
    """What this stage reads."""

    filter: FilterParams


def main(stage: Stage) -> None:
    """Look at all images, write those that are kept, and their shares: of all, and of each class."""
    params = stage.params(Params).filter
    runtime = start()
    classifier = load_classifier(stage.input(CLASSIFIER))
    population, card, facts = load_samples(stage.input(SAMPLES / "population.safetensors"))
    if (card.shape, card.classes) != (classifier.data.shape, classifier.data.classes):
        raise UserError(
            f"sample.model: it draws {card.name}, which is not what the classifiers know, {classifier.data.name}"
        )
    samples, summary = filtered(population, classifier, facts["classes"], params, runtime)
    save_arrays(stage.output(SAMPLES / "filtered.safetensors"), samples, facts)
    write_json(stage.output(METRICS / "summary.json"), summary)
    print("\n".join(report(summary)))


if __name__ == "__main__":
    run_stage("filter", main)
