"""Keep, of the population, the images that classifier a takes for the class that was asked for.

As Razavi et al. 2019 reject samples by a classifier (arXiv:1906.00446, section 3.3), here with a bound on the
probability. Where no class was asked for, the likeliest counts. Where there is but one class, all are kept.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ddpm.classifier.model import Classifier, features_and_logits, load_classifier
from ddpm.compute.device import Runtime, start
from ddpm.images.splits import load_samples
from ddpm.pipeline.arrays import save_arrays
from ddpm.pipeline.console import UserError
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Section, Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.scoring.manifold import NEIGHBOURS
from ddpm.scoring.scores import likeliest

SAMPLES = Path("data/samples")
CLASSIFIER = Path("models/classifier-a.safetensors")
METRICS = Path("metrics/filter")


class FilterParams(Section):
    """What classifier a must give the class of an image at least."""

    least_probability: Annotated[float, Field(ge=0, lt=1)]


class Params(Sections):
    """What this stage reads."""

    filter: FilterParams


def main(stage: Stage) -> None:
    """Look at all images, write those that are kept, and their share: of all, and of the class that loses most."""
    least = stage.params(Params).filter.least_probability
    runtime = start()
    classifier = load_classifier(stage.input(CLASSIFIER))
    population, data, facts = load_samples(stage.input(SAMPLES / "population.safetensors"))
    if (data.shape, data.classes) != (classifier.data.shape, classifier.data.classes):
        raise UserError(
            f"sample.model: it draws {data.name}, which is not what the classifiers know, {classifier.data.name}"
        )
    images, asked = population["images"], population.get("labels")
    probability, classes = class_probability(classifier, images, asked, facts["classes"], runtime)
    kept = probability >= least
    if kept.sum() <= NEIGHBOURS and not kept.all():
        few = f"to {int(kept.sum())} of {len(kept)} images drawn classifier a gives their class with {least:g} or more"
        needed = f"and the scores need more than {NEIGHBOURS}"
        raise UserError(f"filter.least_probability: {few}, {needed}; train longer, or set 0, which keeps all")
    samples = {"images": images[kept], **{name: population[name][:, kept] for name in ("x_t", "pred_x_start")}}
    if asked is not None:
        samples["labels"] = asked[kept]
    save_arrays(stage.output(SAMPLES / "filtered.safetensors"), samples, facts)
    lowest = min(share(kept[classes == label]) for label in classes.unique())
    summary = {"drawn": len(kept), "kept": int(kept.sum()), "share": share(kept), "least_share": lowest}
    write_json(stage.output(METRICS / "summary.json"), summary)


def class_probability(
    classifier: Classifier, images: Tensor, asked: Tensor | None, classes: list[int], runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """What a classifier gives the class that was asked for, or else the likeliest of `classes` (N,), and that class.

    One that knows no classes is sure of the only one.
    """
    if not classifier.knows_classes:
        return torch.ones(len(images)), torch.zeros(len(images), dtype=torch.int64)
    logits = features_and_logits(classifier, images, runtime.device)[1]
    found = likeliest(logits, classes) if asked is None else asked
    return logits.softmax(1).gather(1, found[:, None]).squeeze(1), found


def share(kept: Tensor) -> float:
    """Of booleans (N,), those that are true."""
    return round(float(kept.double().mean()), 4)


if __name__ == "__main__":
    run_stage("filter", main)
