"""The section `train`, and what follows for it from the number and the shape of the images."""

import math
import posixpath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ddpm.images.card import Classes, Shape
from ddpm.images.splits import held_out_share
from exact_stages.params import Section

MOST_TARGET_VALUES = 2048 * 28 * 28  # 2,048 images of MNIST
LR = 0.003  # peak learning rate, with and without train.fine_tune_from (studies/small_sets)


class TrainParams(Section):
    """The training recipe; params.yaml explains each choice."""

    images_seen: Annotated[int, Field(ge=1, le=10**12)] | None
    epochs: Annotated[float, Field(gt=0, le=1e6)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    optimizer: Literal["adam", "muon"]
    lr: Annotated[float, Field(gt=0, le=1)] | None
    lr_decay: Literal["none", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    loss: Literal["noise", "v"]
    timestep_sampling: Literal["uniform", "stratified"]
    log_snr_center: Annotated[float, Field(ge=-20, le=20)] | None
    target_images: Annotated[int, Field(ge=0, le=1_000_000)] | None
    classes: Classes
    label_dropout: Annotated[float, Field(ge=0, lt=1)]
    guide_share: Annotated[float, Field(ge=0, lt=1)]
    flip: bool
    fine_tune_from: Annotated[str, Field(min_length=1), AfterValidator(posixpath.normpath)]
    validation: Annotated[float, Field(ge=0, le=0.5)] | None
    log_every: Annotated[int, Field(ge=1, le=10**9)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    def for_images(self, count: int, shape: Shape) -> "TrainParams":
        """Return these params with epochs, learning rate, validation share and target images for `count` images.

        Their shape is (C, H, W), and the count includes held-out images. The target images have at most
        MOST_TARGET_VALUES levels, so that large ones cost no more than small ones.
        """
        epochs = self.epochs if self.images_seen is None else min(self.epochs, self.images_seen / count)
        validation = held_out_share(count) if self.validation is None else self.validation
        target_images = self.target_images
        if target_images is None:
            target_images = MOST_TARGET_VALUES // math.prod(shape)
        chosen = {"epochs": epochs, "lr": self.lr or LR, "validation": validation, "target_images": target_images}
        return self.model_copy(update=chosen)
