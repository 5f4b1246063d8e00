"""Load the params of the study: its own file, and the pipeline's sections that define how a model is trained."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ddpm.balancing.candidates import SPAN
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.images.card import Classes
from ddpm.networks.unet import UNetParams
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Section, Sections, load_params
from ddpm.training.recipe import TrainParams
from studies.rare_class.generator import GeneratorParams
from studies.rare_class.imbalance import SubsetName
from studies.rare_class.learning import LearnParams
from studies.rare_class.methods import MethodName, Seed
from studies.rare_class.sampling import SamplingParams

FILE = Path("studies/rare_class/params.yaml")
NAMES = ("choosing", "confirming", "fashion")


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("must not be empty")
    return values


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len({*values}) < len(values):
        raise ValueError("has a repeated value; name each once")
    return values


class StudyParams(Section):
    """Params of one comparison: data set, rare classes, imbalanced subsets, methods, and images to test on."""

    set: Annotated[str, Field(pattern=r"^data/\w+$")]
    classes: Annotated[Classes, AfterValidator(_some)]
    subsets: Annotated[tuple[SubsetName, ...], AfterValidator(_some), AfterValidator(_each_once)]
    test: Literal["validation_pool", "test"]
    frequent: Annotated[int, Field(ge=1, le=SPAN)]
    methods: Annotated[tuple[MethodName, ...], AfterValidator(_some), AfterValidator(_each_once)]
    seeds: Annotated[tuple[Seed, ...], AfterValidator(_some), AfterValidator(_each_once)]
    oracle: Annotated[tuple[Seed, ...], AfterValidator(_each_once)]
    picture: SubsetName


class Params(Section):
    """Params of the study's own file."""

    validation_pool: Annotated[int, Field(ge=1, le=10**9)]
    train: GeneratorParams
    sample: SamplingParams
    learn: LearnParams
    choosing: StudyParams
    confirming: StudyParams
    fashion: StudyParams

    def study(self, name: str) -> StudyParams:
        """Return the section of this name."""
        found: StudyParams = getattr(self, name)
        return found


class DataSet(Sections):
    """The data set of the workspace."""

    set: str


class Pipeline(Sections):
    """The sections of the pipeline's params.yaml that the study reads."""

    data: DataSet
    schedule: ScheduleParams
    model: UNetParams
    train: TrainParams

    def recipe(self, params: GeneratorParams) -> TrainParams:
        """Return the training params for an imbalanced subset."""
        return self.train.model_copy(update=dict(params))


def load() -> tuple[Params, Pipeline]:
    """Load both files from the current folder.

    Raises:
        UserError: a file cannot be read, or values are wrong or contradict each other.
    """
    params, pipeline = load_params(Params, path=FILE), load_params(Pipeline)
    if errors := spanning_errors(params, pipeline):
        raise UserError("\n  ".join([f"{len(errors)} invalid", *errors]))
    return params, pipeline


def spanning_errors(params: Params, pipeline: Pipeline) -> list[str]:
    """Describe the errors between sections and between files, a line each."""
    errors = []
    for name in NAMES:
        study = params.study(name)
        if params.sample.seed in study.seeds:
            errors.append(f"sample.seed: {params.sample.seed} must not be among {name}.seeds; set another")
        if study.picture not in study.subsets:
            errors.append(f"{name}.picture: {study.picture} must be among {name}.subsets")
    if params.sample.steps > (timesteps := pipeline.schedule.timesteps):
        errors.append(f"sample.steps: {params.sample.steps} must be at most schedule.timesteps, {timesteps}")
    if pipeline.train.classes:
        errors.append("params.yaml: train.classes: the study samples all classes; set it to all")
    if not pipeline.model.class_conditional:
        errors.append("params.yaml: model.class_conditional: the study samples by class; set it to true")
    if params.sample.guidance != 1 and not pipeline.train.guide_share:
        errors.append("sample.guidance: needs the guide autoguidance, but train.guide_share is 0 in params.yaml; set 1")
    return errors
