"""Check all of params.yaml at once, what spans its sections, and the place; `make repro` runs it first."""

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from ddpm.classifier.model import ClassifierParams
from ddpm.compute.device import start
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.distillation.moment_matching import DistillParams
from ddpm.ingest.preparation import DataParams
from ddpm.networks.guides import Guide
from ddpm.networks.unet import UNetParams
from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.params import Section, load_params
from ddpm.pipeline.stage import check_place
from ddpm.sampling.drawing import check_distilled
from ddpm.scoring.manifold import NEIGHBOURS
from ddpm.study.cutting import CutName, CutParams
from ddpm.study.learning import LearnParams
from ddpm.study.study import ArmsParams
from ddpm.training.recipe import TrainParams
from scripts.results import read_json
from stages.classification_accuracy_score import ClassificationAccuracyScoreParams
from stages.evaluate import EvaluateParams
from stages.filter import FilterParams
from stages.forward_diffusion import ForwardDiffusionParams
from stages.likelihood import LikelihoodParams
from stages.rare_draw import RareDrawParams
from stages.rare_oracle import RareOracleParams
from stages.rare_train import RareTrainParams
from stages.sample import SETS, SampleParams

MODEL = "models/ddpm.safetensors"


class DownloadParams(Section):
    """The sets that dvc.yaml makes download stages of."""

    sets: tuple[Literal["mnist", "fashion_mnist"], ...]  # those of ddpm.ingest.fetching


class SamplePair(Section):
    """Both sets of samples, and the model that draws them."""

    model: Annotated[str, Field(min_length=1)]
    gallery: SampleParams
    population: SampleParams


class CutSets(CutParams, extra="forbid"):
    """The cuts that dvc.yaml makes stages of."""

    sets: tuple[CutName, ...]


class ArmSets(ArmsParams, extra="forbid"):
    """The cuts on which arms are compared."""

    sets: tuple[CutName, ...]


class OracleSeeds(RareOracleParams, extra="forbid"):
    """The seeds of its classifiers."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]


class AllParams(Section):
    """The whole file: unlike a stage's `Params`, it allows no other section."""

    data: DataParams
    download: DownloadParams
    schedule: ScheduleParams
    forward_diffusion: ForwardDiffusionParams
    classifier: ClassifierParams
    model: UNetParams
    train: TrainParams
    distill: DistillParams
    sample: SamplePair
    filter: FilterParams
    evaluate: EvaluateParams
    likelihood: LikelihoodParams
    classification_accuracy_score: ClassificationAccuracyScoreParams
    cut: CutSets
    rare_train: RareTrainParams
    rare_draw: RareDrawParams
    rare_learn: LearnParams
    rare_choose: ArmSets
    rare_confirm: ArmSets
    rare_oracle: OracleSeeds


def spanning_errors(params: AllParams) -> list[str]:
    """What is wrong between sections, a line each."""
    errors = []
    timesteps = params.schedule.timesteps
    if late := [t for t in params.forward_diffusion.timesteps if t >= timesteps]:
        errors.append(f"forward_diffusion.timesteps: {late} must be below schedule.timesteps, {timesteps}")
    known = get_args(get_args(DownloadParams.model_fields["sets"].annotation)[0])
    folder, _, name = params.data.set.rpartition("/")
    if folder == "data" and name in known and name not in params.download.sets:
        errors.append(f"data.set: {params.data.set} is made only when download.sets has {name}")
    learned = {str(each) for each in params.train.classes}
    distilled = {f"models/distilled-{steps}.safetensors": steps for steps in params.distill.steps}
    if many := [steps for steps in params.distill.steps if steps > timesteps]:
        errors.append(f"distill.steps: {many} must be at most schedule.timesteps, {timesteps}")
    source = params.sample.model
    if source.startswith("models/") and source not in {MODEL, *distilled}:
        errors.append(
            f"sample.model: {source} is made by no stage; choose from {', '.join(sorted({MODEL, *distilled}))}"
        )
    for name in SETS:
        sampler: SampleParams = getattr(params.sample, name)
        steps = sampler.steps
        if steps is not None and steps > timesteps:
            errors.append(f"sample.{name}.steps: {steps} must be at most schedule.timesteps, {timesteps}")
        if excess := sampler.excess(steps or distilled.get(source, timesteps)):
            errors.append(f"sample.{name}.{excess}")
        if source in distilled:
            try:
                check_distilled(distilled[source], sampler)
            except UserError as error:
                errors.append(f"sample.{name}.{error}")
        elif sampler.guidance != 1 and (reason := unguided(params, sampler.guide)):
            guidance = f"{sampler.guidance:g}, but no guide {sampler.guide} is made"
            errors.append(f"sample.{name}.guidance: {guidance}: {reason}; set it to 1")
        classes = sampler.classes
        if classes and not params.model.class_conditional:
            errors.append(f"sample.{name}.classes: must be all where model.class_conditional is false")
        elif params.train.classes and (unknown := [each for each in classes if str(each) not in learned]):
            errors.append(f"sample.{name}.classes: {unknown} must be among train.classes, {list(params.train.classes)}")
    if not params.sample.gallery.keep_every:
        errors.append("sample.gallery.keep_every: the strip of pictures needs kept frames; set it to 1 or more")
    if params.train.label_dropout and not params.model.class_conditional:
        errors.append("train.label_dropout: there are no labels to drop where model.class_conditional is false; set 0")
    if params.train.start in {MODEL, *distilled}:
        errors.append(
            f"train.start: {params.train.start} is what training makes; copy it to data/, and `dvc add` the copy"
        )
    errors += study_errors(params) if params.cut.sets else []
    if params.sample.population.count <= NEIGHBOURS:
        errors.append(f"sample.population.count: the scores need more than {NEIGHBOURS} images")
    return errors


def study_errors(params: AllParams) -> list[str]:
    """What is wrong with the study of rare classes, where there is one."""
    errors = []
    for name in ("rare_choose", "rare_confirm"):
        if unknown := [each for each in getattr(params, name).sets if each not in params.cut.sets]:
            errors.append(f"{name}.sets: {unknown} must be among cut.sets, {list(params.cut.sets)}")
    if params.rare_draw.seed in {*params.rare_choose.seeds, *params.rare_confirm.seeds}:
        errors.append(f"rare_draw.seed: {params.rare_draw.seed} would make the filter one of the arms; set another")
    if params.rare_draw.steps > (timesteps := params.schedule.timesteps):
        errors.append(f"rare_draw.steps: {params.rare_draw.steps} must be at most schedule.timesteps, {timesteps}")
    if params.train.classes:
        errors.append("cut.sets: images of all classes are drawn, and train.classes names some; set it to all")
    if not params.model.class_conditional:
        errors.append("cut.sets: rare classes are drawn by name, which model.class_conditional false forbids; set []")
    if params.rare_draw.guidance != 1 and not params.train.early:
        errors.append("rare_draw.guidance: no guide early is made, for train.early is 0; set 1")
    return errors


def unguided(params: AllParams, guide: Guide) -> str:
    """Why the training leaves no such guide; empty where it leaves one."""
    if guide == "early":
        return "" if params.train.early else "train.early is 0"
    if not params.model.class_conditional:
        return "model.class_conditional is false"
    return "" if params.train.label_dropout else "train.label_dropout is 0"


def environment_note(recorded: Path) -> str:
    """What DVC does not see: how this machine differs from the one of the recorded training; empty where it does not.

    Raises:
        UserError: an environment variable names what this machine does not have; or the file is damaged.
    """
    if not recorded.is_file():
        return ""
    before, here = read_json(recorded), start().describe()
    differing = [
        f"{name} {before[name]} (here {here[name]})" for name in here if before.get(name, here[name]) != here[name]
    ]
    if not differing:
        return ""
    return f"note: {recorded} has {', '.join(differing)}: what is computed anew here may differ by rounding"


def main() -> None:
    """Check the file that the command line names, by default params.yaml; and say where the environment is another."""
    check_place()
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "params.yaml")
    if errors := spanning_errors(load_params(AllParams, path=path)):
        raise UserError("\n  ".join([f"{path}: {len(errors)} invalid", *errors]))
    if note := environment_note(Path("metrics/train/environment.json")):
        print(note, file=sys.stderr)


if __name__ == "__main__":
    run(main)
