"""The section `sample`, and what is chosen for a model where it leaves something open."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from ddpm.images.card import Classes, listed
from ddpm.params.card import Guide, ModelCard
from exact_stages.console import UserError, shown
from exact_stages.params import Section, Sections

CLASSIFIER_FREE_SCALE = 1.1  # more costs variety
FULL_SCALE, FULL_IMAGES = 1.3, 320_000  # best for the default training, and its images, counting repeats
CLIP_ART_SCALE = 1.5  # of a training that began with clip art (studies/small_sets)
GUIDED_BY = {"autoguidance": "guide_share", "classifier_free": "label_dropout"}  # the param of `train` that makes it
MOST_IMAGES, MOST_FRAMES = 10_000_000, 1_000_000
MOST_SCORED, BEFORE_FILTER = 10_000, 1.04  # samples that the scores use at most; the filter rejects some
LogSNR = Annotated[float, Field(ge=-100, le=100)]


class SharedParams(Sections):
    """Guidance, classes and variance, which preview and scored share; params.yaml explains each choice."""

    variance: Literal["posterior", "beta"] = "posterior"
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = None
    guide: Guide = "autoguidance"
    guidance_interval: tuple[LogSNR, LogSNR] = (-4.0, 2.0)
    classes: Classes = ()

    @field_validator("guidance_interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError("must be from, to in ascending order")
        return interval


class StepParams(Section):
    """The sampler and its timesteps; params.yaml explains each choice."""

    sampler: Literal["ddpm", "ddim", "dpmpp_2m"] = "dpmpp_2m"
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = 24
    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    clip: bool = True


class SamplerParams(SharedParams, StepParams):
    """All that a sampler needs, with the defaults of the set `scored`; functions want them `fitted` to the model."""


class SetParams(StepParams):
    """The params of one set of samples: its sampler, the number of images, their seed, and the frames to keep."""

    count: Annotated[int, Field(ge=2, le=MOST_IMAGES)] | None
    keep_every: Annotated[int, Field(ge=0, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class SampleParams(SharedParams):
    """Both sets of samples, what they share, and the model that samples them."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1)]
    preview: SetParams
    scored: SetParams


def wanted_classes(card: ModelCard, params: SharedParams) -> list[int]:
    """Return the labels of the classes to sample, each once and in order; "all" means all classes of the model.

    Raises:
        UserError: the model cannot sample one of the classes.
    """
    if not params.classes:
        return list(card.classes)
    if not card.model.class_conditional:
        raise UserError("classes: this model is not class-conditional; set all, or train one on only these classes")
    labels = card.data.labels(params.classes, "classes")
    if unknown := sorted(set(labels) - set(card.classes)):
        seen = listed(card.data.classes[label] for label in card.classes)
        raise UserError(f"classes: the model has not seen {shown(card.data.classes[unknown[0]])}; choose from {seen}")
    return list(labels)


def count_of(of_set: SetParams, card: ModelCard) -> int:
    """Return the number of images; by default as many as the scores can use beside the model's training images."""
    return of_set.count or round(BEFORE_FILTER * min(sum(card.class_counts), MOST_SCORED))


def fitted(params: SamplerParams, card: ModelCard) -> SamplerParams:
    """Return these params with the unset ones chosen for a model; only here is it decided whether they fit it.

    Raises:
        UserError: params ask for more steps than the model has timesteps, or for classes or guidance that it lacks; or
            they do not fit a distilled model. The message begins with the param.
    """
    wanted_classes(card, params)
    if card.timesteps:
        params = _distilled(params, len(card.timesteps))
    elif params.steps and params.steps > (timesteps := card.schedule.timesteps):
        raise UserError(f"steps: {params.steps}, but the model has only {timesteps} timesteps; lower it")
    scale, known = params.guidance, params.guide in card.guides
    if scale is None and params.guide == "autoguidance":
        # The guide of a short training has hardly learned: its errors say little about those of the model.
        learned = min(1, (card.images_seen or 0) / FULL_IMAGES)
        scale = CLIP_ART_SCALE if card.from_clip_art else round(1 + (FULL_SCALE - 1) * learned, 2)
        scale = scale if known else 1.0
    if scale != 1 and not known:
        guides = listed(card.guides) if card.guides else "none"
        other = "" if card.timesteps else f", or train a model with train.{GUIDED_BY[params.guide]}"
        raise UserError(f"guidance: this model has no guide {params.guide} (it has {guides}); set guidance to 1{other}")
    return params.model_copy(update={"guidance": CLASSIFIER_FREE_SCALE if scale is None else scale})


def _distilled(params: SamplerParams, few: int) -> SamplerParams:
    """Return these params for a distilled model: ancestral, with its own timesteps; those not given follow from it."""
    fitting: dict[str, tuple[Any, ...]] = {
        "sampler": ("ddpm", "ddim"),
        "variance": ("posterior",),
        "eta": (1,),
        "steps": (None, few),
    }
    given = params.model_fields_set
    params = params.model_copy(update={key: values[0] for key, values in fitting.items() if key not in given})
    for key, values in fitting.items():
        if (value := getattr(params, key)) not in values:
            needed = " or ".join("null" if each is None else str(each) for each in values)
            raise UserError(f"{key}: {value}, but a distilled model needs {needed}; set that, or leave it out")
    return params


def fitted_set(
    name: str, shared: SharedParams, of_set: SetParams, card: ModelCard
) -> tuple[SamplerParams, dict[str, Any]]:
    """Return the params of the set `name`, `fitted` to a model, and those of them that were chosen, by dotted name.

    Raises:
        UserError: see `fitted`; or too many frames would be held in memory. The message begins with the dotted name.
    """

    def dotted(key: str) -> str:
        return f"sample.{name}.{key}" if key in SetParams.model_fields else f"sample.{key}"

    given = SamplerParams.model_construct(**dict(shared) | dict(of_set))
    try:
        params = fitted(given, card)
    except UserError as error:
        key, _, problem = str(error).partition(": ")
        raise UserError(f"{dotted(key)}: {problem}") from None
    count, chosen = count_of(of_set, card), dict[str, Any]()
    if given.guidance is None and not card.timesteps:
        chosen["sample.guidance"] = params.guidance
    if of_set.count is None:
        chosen[dotted("count")] = count
    steps = len(card.timesteps) or params.steps or card.schedule.timesteps
    frames = -(-steps // of_set.keep_every) if of_set.keep_every else 0
    if frames * count > MOST_FRAMES:  # they are in memory
        kept = f"{of_set.keep_every} keeps {frames} frames of {count} images, more than {MOST_FRAMES} in all"
        raise UserError(f"{dotted('keep_every')}: {kept}; raise it, lower the count, or set 0")
    return params, chosen
