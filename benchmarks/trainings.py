"""A training run of ours on noise, for speed does not depend on what is seen."""

import torch

from ddpm.device import Runtime
from ddpm.images import IMAGE_SHAPE
from ddpm.labels import CLASSES
from ddpm.splits import Split
from ddpm.training import Training
from stages.train import Params, new_training


def on_noise(params: Params, count: int, runtime: Runtime, shape: tuple[int, int, int] = IMAGE_SHAPE) -> Training:
    """A run on so many images of this shape (channels, height, width), none of them held out."""
    images = Split(torch.rand(count, *shape) * 2 - 1, torch.randint(CLASSES, (count,)))
    return new_training(params, images, images.take(slice(0)), runtime)
