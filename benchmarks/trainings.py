"""A training run of ours on noise, for speed does not depend on what is seen."""

import torch

from ddpm.data.images import IMAGE_SHAPE
from ddpm.data.labels import CLASSES
from ddpm.data.splits import Split
from ddpm.runtime.device import Runtime
from ddpm.training.loop import Training
from stages.train import Params, new_training


def on_noise(params: Params, count: int, runtime: Runtime, shape: tuple[int, int, int] = IMAGE_SHAPE) -> Training:
    """A run on so many images of this shape (channels, height, width), none of them held out."""
    images = Split(torch.rand(count, *shape) * 2 - 1, torch.randint(CLASSES, (count,)))
    return new_training(params, images, images.take(slice(0)), runtime)
