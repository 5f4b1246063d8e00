"""Check all of params.yaml, rules between sections included, before any other stage runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from ddpm.classifier.model import ClassifierParams
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.distillation.moment_matching import DistillParams
from ddpm.ingest.preparation import DataParams
from ddpm.judging.accuracy_score import ClassificationAccuracyScoreParams
from ddpm.judging.filtering import FilterParams
from ddpm.likelihood.bound import LikelihoodParams
from ddpm.networks.unet import UNetParams
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Section
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.sampling.generation import check_distilled
from ddpm.sampling.samples import SampleParams
from ddpm.scoring.manifold import NEIGHBOURS
from ddpm.training.recipe import TrainParams

CHECKED = Path("data/checked.txt")
MODEL = "models/ddpm.safetensors"
KnownSet = Literal["mnist", "fashion_mnist"]  # those of ddpm.ingest.fetching


class DownloadParams(Section):
    """The data sets to download; dvc.yaml has a stage for each."""

    sets: tuple[KnownSet, ...]


class SamplePair(Section):
    """Both sets of samples, and the model that samples them."""

    model: Annotated[str, Field(min_length=1)]
    gallery: SampleParams
    population: SampleParams


class AllParams(Section):
    """All sections of params.yaml; unlike a stage's `Params`, no others are allowed."""

    data: DataParams
    download: DownloadParams
    schedule: ScheduleParams
    classifier: ClassifierParams
    model: UNetParams
    train: TrainParams
    distill: DistillParams
    sample: SamplePair
    filter: FilterParams
    likelihood: LikelihoodParams
    classification_accuracy_score: ClassificationAccuracyScoreParams


def spanning_errors(params: AllParams) -> list[str]:
    """Return the errors between sections, one line each."""
    errors = [*_errors(params)]
    for name in ("gallery", "population"):
        errors += [f"sample.{name}.{error}" for error in _sample_errors(params, getattr(params.sample, name))]
    return errors


def _errors(params: AllParams) -> Iterator[str]:
    timesteps, made = params.schedule.timesteps, {MODEL, *_distilled(params)}
    if any(steps > timesteps for steps in params.distill.steps):
        yield f"distill.steps: must be at most schedule.timesteps, {timesteps}"
    folder, _, name = params.data.set.rpartition("/")
    if folder == "data" and name in get_args(KnownSet) and name not in params.download.sets:
        yield f"data.set: {params.data.set} needs download.sets to contain {name}; add it"
    if params.train.start in made:
        yield f"train.start: {params.train.start} is an output of training; copy it to data/, and `dvc add` the copy"
    if params.train.label_dropout and not params.model.class_conditional:
        yield "train.label_dropout: no labels to drop, since model.class_conditional is false; set 0"
    if params.sample.model.startswith("models/") and params.sample.model not in made:
        yield f"sample.model: no stage makes {params.sample.model}; choose from {', '.join(sorted(made))}"
    if not params.sample.gallery.keep_every:
        yield "sample.gallery.keep_every: the strip needs kept frames; set it to 1 or more"
    if params.sample.population.count <= NEIGHBOURS:
        yield f"sample.population.count: the scores need more than {NEIGHBOURS} images; increase it"


def _sample_errors(params: AllParams, sampler: SampleParams) -> Iterator[str]:
    if params.sample.model not in {MODEL, *_distilled(params)}:
        return  # a model of the user's own; the stage checks it
    timesteps, distilled = params.schedule.timesteps, _distilled(params).get(params.sample.model)
    labelled, learned = params.model.class_conditional, {*map(str, params.train.classes)}
    if sampler.steps and sampler.steps > timesteps:
        yield f"steps: {sampler.steps} must be at most schedule.timesteps, {timesteps}"
    if excess := sampler.excess(sampler.steps or distilled or timesteps):
        yield excess
    if distilled:
        try:
            check_distilled(distilled, sampler)
        except UserError as error:
            yield str(error)
    elif sampler.needs_guide:
        if sampler.guide == "autoguidance" and not params.train.guide_share:
            yield "guidance: training keeps no guide autoguidance, since train.guide_share is 0; set guidance to 1"
        if sampler.guide == "classifier_free" and not (labelled and params.train.label_dropout):
            why = "train.label_dropout is 0" if labelled else "model.class_conditional is false"
            yield f"guidance: training keeps no guide classifier_free, since {why}; set guidance to 1"
    if sampler.classes and not labelled:
        yield "classes: must be all, since model.class_conditional is false"
    elif learned and (unknown := [each for each in sampler.classes if str(each) not in learned]):
        yield f"classes: {unknown} must be among train.classes, {list(params.train.classes)}"


def _distilled(params: AllParams) -> dict[str, int]:
    """Return the files of distilled models and their numbers of evaluations."""
    return {f"models/distilled-{steps}.safetensors": steps for steps in params.distill.steps}


def main(stage: Stage) -> None:
    """Check all params; write a text that never changes, so that a legal edit makes no other stage stale."""
    if errors := spanning_errors(stage.params(AllParams)):
        raise UserError("\n  ".join([f"params.yaml: {len(errors)} invalid", *errors]))
    stage.write(CHECKED, b"params.yaml is valid\n")


if __name__ == "__main__":
    run_stage("check", main)
