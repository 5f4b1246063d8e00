"""The training recipe, and its choices that depend on the number of images."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ddpm.images.card import Classes
from ddpm.images.splits import held_out_share
from ddpm.training.optim import OptimizationParams


class TrainParams(OptimizationParams):
    """The training recipe; params.yaml explains each choice."""

    images: Annotated[int, Field(ge=1, le=10**12)] | None
    epochs: Annotated[float, Field(gt=0, le=1e6)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    loss: Literal["noise", "v"]
    timestep_sampling: Literal["uniform", "stratified"]
    log_snr_center: Annotated[float, Field(ge=-20, le=20)] | None
    log_snr_uniform: Annotated[float, Field(ge=0, le=1)]
    target_images: Annotated[int, Field(ge=0, le=1_000_000)]
    classes: Classes
    label_dropout: Annotated[float, Field(ge=0, lt=1)]
    guide_share: Annotated[float, Field(ge=0, lt=1)]
    flip: bool
    start: Annotated[str, Field(min_length=1)]
    validation: Annotated[float, Field(ge=0, le=0.5)] | None
    patience: Annotated[float, Field(gt=0, le=1)]
    log_every: Annotated[int, Field(ge=1, le=10**9)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    @model_validator(mode="after")
    def _centered(self) -> Self:
        if self.log_snr_uniform and self.log_snr_center is None:
            raise ValueError("log_snr_uniform needs a log_snr_center; set log_snr_uniform to 0, or name a center")
        return self

    def for_images(self, count: int) -> "TrainParams":
        """Return these params with epochs and validation share for `count` images, held-out ones included."""
        epochs = self.epochs if self.images is None else min(self.epochs, self.images / count)
        validation = held_out_share(count) if self.validation is None else self.validation
        return self.model_copy(update={"epochs": epochs, "validation": validation})
