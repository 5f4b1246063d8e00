"""Check all of params.yaml, rules between sections included, before any other stage runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from ddpm.classifier.model import ClassifierParams
from ddpm.distill import DistillParams
from ddpm.images.card import DataCard
from ddpm.ingest.preparation import DataParams
from ddpm.judging.accuracy_score import ClassificationAccuracyScoreParams
from ddpm.judging.filtering import FilterParams
from ddpm.likelihood import LikelihoodParams
from ddpm.model import Guide, ModelCard
from ddpm.sampling.params import SetParams, SharedParams, fitted_set
from ddpm.schedule import ScheduleParams
from ddpm.scoring.manifold import NEIGHBOURS
from ddpm.training.params import TrainParams
from ddpm.unet import UNetParams
from exact_stages.console import UserError
from exact_stages.files import read_yaml
from exact_stages.params import Section
from exact_stages.stage import Stage, run_stage

CHECKED = Path("data/checked.txt")
MODEL = "models/ddpm.safetensors"


EARLIER = {  # params that went, and what to do
    "download": "remove this section; data.set alone decides what is downloaded",
    "classifier.images": "is now classifier.images_seen",
    "train.images": "is now train.images_seen",
    "distill.images": "is now distill.images_seen",
    "train.start": "is now train.fine_tune_from; for none, data/processed/train.safetensors",
    "model.fourier_features": "remove it; sampling ends with the levels of the images",
    "train.log_snr_uniform": "remove it; sampling ends with the levels of the images",
}


class SampleSection(SharedParams):
    """Both sets of samples, what they share, and the model that samples them."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1)]
    gallery: SetParams
    population: SetParams


class AllParams(Section):
    """All sections of params.yaml; unlike a stage's `Params`, no others are allowed."""

    data: DataParams
    schedule: ScheduleParams
    classifier: ClassifierParams
    model: UNetParams
    train: TrainParams
    distill: DistillParams
    sample: SampleSection
    filter: FilterParams
    likelihood: LikelihoodParams
    classification_accuracy_score: ClassificationAccuracyScoreParams


def spanning_errors(params: AllParams) -> list[str]:
    """Return the errors between sections, one line each."""
    return [*dict.fromkeys([*_errors(params), *_sample_errors(params)])]


def _errors(params: AllParams) -> Iterator[str]:
    timesteps, made = params.schedule.timesteps, {MODEL, *_distilled(params)}
    if any(steps > timesteps for steps in params.distill.steps):
        yield f"distill.steps: must be at most schedule.timesteps, {timesteps}"
    if (model := params.train.fine_tune_from) in made:
        yield f"train.fine_tune_from: {model} is an output of training; copy it to data/, and `dvc add` the copy"
    if params.train.label_dropout and not params.model.class_conditional:
        yield "train.label_dropout: no labels to drop, since model.class_conditional is false; set 0"
    if params.sample.model.startswith("models/") and params.sample.model not in made:
        yield f"sample.model: no stage makes {params.sample.model}; choose from {', '.join(sorted(made))}"
    if not params.sample.gallery.keep_every:
        yield "sample.gallery.keep_every: the strip needs kept frames; set it to 1 or more"
    if params.sample.population.count <= NEIGHBOURS:
        yield f"sample.population.count: the scores need more than {NEIGHBOURS} images; increase it"


def _sample_errors(params: AllParams) -> Iterator[str]:
    """Check both sets against the card that the model will have, as far as the params decide it."""
    if params.sample.model not in {MODEL, *_distilled(params)}:
        return  # a model of the user's own; the stage checks it
    learned = params.train.classes or params.sample.classes or ("0",)  # all may be any
    guides: dict[Guide, object] = {
        "autoguidance": params.train.guide_share,
        "classifier_free": params.train.label_dropout and params.model.class_conditional,
    }
    distilled = _distilled(params).get(params.sample.model, 0)
    card = ModelCard.model_construct(
        data=DataCard.model_construct(shape=(1, 1, 1), classes=tuple(dict.fromkeys(map(str, learned)))),
        model=params.model,
        schedule=params.schedule,
        class_counts=(1,) * len(learned),
        guides=() if distilled else tuple(guide for guide, share in guides.items() if share),
        timesteps=(0,) * distilled,
    )
    for name in ("gallery", "population"):
        try:
            fitted_set(name, params.sample, getattr(params.sample, name), card)
        except UserError as error:
            yield str(error)


def _distilled(params: AllParams) -> dict[str, int]:
    """Return the files of distilled models and their numbers of evaluations."""
    return {f"models/distilled-{steps}.safetensors": steps for steps in params.distill.steps}


def _has(given: Any, section: str, key: str | None = None) -> bool:
    """Tell whether params have a section, or a key in it."""
    found = given.get(section) if isinstance(given, dict) else None
    return found is not None if key is None else isinstance(found, dict) and key in found


def main(stage: Stage) -> None:
    """Check all params; write a text that never changes, so that a legal edit makes no other stage stale."""
    given = read_yaml(Path("params.yaml")) or {}
    if old := [f"{key}: {fix}" for key, fix in EARLIER.items() if _has(given, *key.split("."))]:
        raise UserError("\n  ".join([f"params.yaml: {len(old)} of an earlier version", *old]))
    if errors := spanning_errors(stage.params(AllParams)):
        raise UserError("\n  ".join([f"params.yaml: {len(errors)} invalid", *errors]))
    stage.write(CHECKED, b"params.yaml is valid\n")


if __name__ == "__main__":
    run_stage("check", main)
