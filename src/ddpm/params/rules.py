"""All of params.yaml, and the rules between its sections."""

from collections.abc import Iterator

from ddpm.images.card import DataCard
from ddpm.images.splits import LEAST_TEST
from ddpm.params.card import MAX_TIMES, Guide, ModelCard
from ddpm.params.classification_accuracy_score import ClassificationAccuracyScoreParams
from ddpm.params.classifier import ClassifierParams
from ddpm.params.data import DataParams
from ddpm.params.distill import DistillParams
from ddpm.params.filter import FilterParams
from ddpm.params.likelihood import LikelihoodParams
from ddpm.params.model import ModelParams
from ddpm.params.sample import SampleParams, fitted_set
from ddpm.params.schedule import ScheduleParams
from ddpm.params.train import TrainParams
from exact_stages.console import UserError
from exact_stages.params import Section

MODEL = "models/ddpm.safetensors"


class AllParams(Section):
    """All sections of params.yaml; unlike a stage's `Params`, no others are allowed."""

    data: DataParams
    schedule: ScheduleParams
    classifier: ClassifierParams
    model: ModelParams
    train: TrainParams
    distill: DistillParams
    sample: SampleParams
    filter: FilterParams
    likelihood: LikelihoodParams
    classification_accuracy_score: ClassificationAccuracyScoreParams


def spanning_errors(params: AllParams) -> list[str]:
    """Return the errors between sections, one line each."""
    return [*dict.fromkeys([*_errors(params), *_sample_errors(params)])]


def _errors(params: AllParams) -> Iterator[str]:
    timesteps, made = params.schedule.timesteps, {MODEL, *_distilled(params)}
    if timesteps * params.model.time_embed_dim > MAX_TIMES:
        yield f"schedule.timesteps: times model.time_embed_dim it must be at most {MAX_TIMES}; lower one of them"
    if any(steps > timesteps for steps in params.distill.steps):
        yield f"distill.steps: must be at most schedule.timesteps, {timesteps}"
    if (model := params.train.fine_tune_from) in made:
        yield f"train.fine_tune_from: {model} is an output of training; copy it to data/, and `dvc add` the copy"
    if params.train.label_dropout and not params.model.class_conditional:
        yield "train.label_dropout: no labels to drop, since model.class_conditional is false; set 0"
    if params.sample.model.startswith("models/") and params.sample.model not in made:
        yield f"sample.model: no stage makes {params.sample.model}; choose from {', '.join(sorted(made))}"
    if not params.sample.preview.keep_every:
        yield "sample.preview.keep_every: the strip needs kept frames; set it to 1 or more"
    if (params.sample.scored.count or LEAST_TEST) < LEAST_TEST:
        yield f"sample.scored.count: the scores need {LEAST_TEST} images; increase it"


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
        images_seen=0,
        timesteps=(0,) * distilled,
    )
    for name in ("preview", "scored"):
        try:
            fitted_set(name, params.sample, getattr(params.sample, name), card)
        except UserError as error:
            yield str(error)


def _distilled(params: AllParams) -> dict[str, int]:
    """Return the files of distilled models and their numbers of evaluations."""
    return {f"models/distilled-{steps}.safetensors": steps for steps in params.distill.steps}
