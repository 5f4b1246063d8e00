"""The model card: what a model file says of itself, the params that rebuild its network among them."""

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ddpm.images.card import MAX_CLASSES, DataCard
from ddpm.params.model import ModelParams
from ddpm.params.schedule import ScheduleParams
from exact_stages.params import Section

MAX_TIMES = 1 << 22  # numbers in the time embedding table, which is rebuilt in memory
MAX_COUNT = 1 << 40  # images of a class, or of a training; float64 sums a thousand such counts exactly
Guide = Literal["autoguidance", "classifier_free"]  # by weights from early in training, or by the model without labels
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class ModelCard(Section):
    """The metadata of a model file."""

    data: DataCard
    model: ModelParams
    schedule: ScheduleParams
    class_counts: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_CLASSES)]  # in training
    guides: tuple[Guide, ...]  # how its samples can be guided
    images_seen: Count | None  # in training, counting repeats; None of a distilled model
    faint: Annotated[int, Field(ge=0, le=254)]  # the highest level that becomes 0 in samples
    timesteps: tuple[Annotated[int, Field(ge=0)], ...] = ()  # of a distilled model: it samples at no others
    from_clip_art: bool = Field(default=False, exclude_if=operator.not_)  # its training began with that model

    @field_validator("class_counts")
    @classmethod
    def _some(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        if not any(counts):
            raise ValueError("must count at least one image")
        return counts

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.schedule.timesteps * self.model.time_embed_dim > MAX_TIMES:
            raise ValueError(f"schedule: timesteps times model.time_embed_dim must be at most {MAX_TIMES}")
        if len(self.class_counts) != len(self.data.classes):
            raise ValueError(f"{len(self.class_counts)} class_counts for {len(self.data.classes)} classes")
        if self.model != self.model.for_images(self.data.shape):
            raise ValueError("model: channels and patch_size must be set")
        if "classifier_free" in self.guides and not self.model.class_conditional:
            raise ValueError("guides: classifier_free needs a class-conditional network")
        if len({*self.guides}) < len(self.guides):
            raise ValueError("guides: must not repeat")
        if self.guides and self.timesteps:
            raise ValueError("guides: a distilled model, with timesteps, must have none")
        if list(self.timesteps) != sorted({*self.timesteps}, reverse=True):
            raise ValueError("timesteps: must descend")
        if self.timesteps and self.timesteps[0] != self.schedule.timesteps - 1:
            raise ValueError("timesteps: must begin with the last of the schedule")
        return self

    @property
    def classes(self) -> tuple[int, ...]:
        """Return the labels of the classes that the model was trained on."""
        return tuple(label for label, count in enumerate(self.class_counts) if count)
