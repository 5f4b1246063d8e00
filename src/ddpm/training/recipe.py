"""The training recipe, and its choices that depend on the number of images."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ddpm.images.card import Classes, Shape
from ddpm.images.splits import held_out_share
from ddpm.training.optim import OptimizationParams

MOST_TARGET_VALUES = 2048 * 28 * 28  # 2,048 images of MNIST


class TrainParams(OptimizationParams):
    """The training recipe; params.yaml explains each choice."""

    images: Annotated[int, Field(ge=1, le=10**12)] | None
    epochs: Annotated[float, Field(gt=0, le=1e6)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    loss: Literal["noise", "v"]
    timestep_sampling: Literal["uniform", "stratified"]
    log_snr_center: Annotated[float, Field(ge=-20, le=20)] | None
    log_snr_uniform: Annotated[float, Field(ge=0, le=1)]
    target_images: Annotated[int, Field(ge=0, le=1_000_000)] | None
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

    def for_images(self, count: int, shape: Shape) -> "TrainParams":
        """Return these params with epochs, validation share and target images for `count` images of shape (C, H, W).

        The count includes held-out images. The target images have at most MOST_TARGET_VALUES levels, so that large ones
        cost no more than small ones.
        """
        epochs = self.epochs if self.images is None else min(self.epochs, self.images / count)
        validation = held_out_share(count) if self.validation is None else self.validation
        target_images = self.target_images
        if target_images is None:
            target_images = MOST_TARGET_VALUES // math.prod(shape)
        return self.model_copy(update={"epochs": epochs, "validation": validation, "target_images": target_images})
