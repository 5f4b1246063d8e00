"""Sample images by a model of the workspace."""

from pathlib import Path

import torch
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.model import LoadedModel
from ddpm.sampling.params import SamplerParams, fitted, sample_labels
from ddpm.sampling.sets import sample_images

MODELS, PROCESSED = Path("models"), Path("data/processed")
SEED = 2  # of samples; differs from the gallery's and the population's


def sampled(loaded: LoadedModel, params: SamplerParams, count: int, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Sample images as they would be written, uint8 (count, C, H, W), and their labels."""
    params = fitted(params, loaded.card)
    batches = sample_images(loaded, params, SEED, range(count), runtime, "sample")
    return torch.cat([images for _, images in batches]), sample_labels(loaded.card, params, SEED, range(count))
