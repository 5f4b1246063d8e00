"""Check all of params.yaml at once, and what spans its sections; `make repro` runs it before the pipeline."""

import sys
from pathlib import Path

import stages  # noqa: F401  (puts the library beside dvc.yaml on the path)
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.networks.classifier import ClassifierParams
from ddpm.networks.unet import UNetParams
from ddpm.runtime.console import UserError, run
from ddpm.runtime.params import Section, load_params
from ddpm.scoring.manifold import NEIGHBOURS
from ddpm.training.loop import TrainParams
from stages.classification_accuracy_score import ClassificationAccuracyScoreParams
from stages.download import DownloadParams
from stages.evaluate import EvaluateParams
from stages.forward_diffusion import ForwardDiffusionParams
from stages.likelihood import LikelihoodParams
from stages.sample import SampleParams

TRAINING_IMAGES = 60_000  # in every data set that download knows


class SamplePair(Section):
    """Both sets of samples."""

    gallery: SampleParams
    population: SampleParams


class AllParams(Section):
    """The whole file: unlike a stage's `Params`, it allows no other section."""

    download: DownloadParams
    schedule: ScheduleParams
    forward_diffusion: ForwardDiffusionParams
    classifier: ClassifierParams
    model: UNetParams
    train: TrainParams
    sample: SamplePair
    evaluate: EvaluateParams
    likelihood: LikelihoodParams
    classification_accuracy_score: ClassificationAccuracyScoreParams


def spanning_errors(params: AllParams) -> list[str]:
    """What is wrong between sections, a line each."""
    errors = []
    timesteps = params.schedule.timesteps
    if late := [t for t in params.forward_diffusion.timesteps if t >= timesteps]:
        errors.append(f"forward_diffusion.timesteps: {late} must be below schedule.timesteps, {timesteps}")
    for name in SamplePair.model_fields:
        steps = getattr(params.sample, name).steps
        if steps is not None and steps > timesteps:
            errors.append(f"sample.{name}.steps: {steps} must be at most schedule.timesteps, {timesteps}")
        classes = getattr(params.sample, name).classes
        if classes and not params.model.class_conditional:
            errors.append(f"sample.{name}.classes: must be all where model.class_conditional is false")
        elif unknown := sorted(set(classes) - set(params.train.classes or classes)):
            errors.append(f"sample.{name}.classes: {unknown} must be among train.classes, {list(params.train.classes)}")
    if not params.sample.gallery.keep_every:
        errors.append("sample.gallery.keep_every: the strip of pictures needs kept frames; set it to 1 or more")
    if params.train.batch_size + params.train.validation > TRAINING_IMAGES:
        errors.append(
            f"train.batch_size: {params.train.batch_size} and train.validation {params.train.validation} together "
            f"must be at most the {TRAINING_IMAGES} training images"
        )
    if params.classifier.batch_size > TRAINING_IMAGES:
        errors.append(f"classifier.batch_size: must be at most the {TRAINING_IMAGES} training images")
    if params.sample.population.count <= NEIGHBOURS:
        errors.append(f"sample.population.count: the scores need more than {NEIGHBOURS} images")
    return errors


def main() -> None:
    """Check the file that the command line names, by default params.yaml."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "params.yaml")
    if errors := spanning_errors(load_params(AllParams, path=path)):
        raise UserError("\n  ".join([f"{path}: {len(errors)} invalid", *errors]))


if __name__ == "__main__":
    run(main)
