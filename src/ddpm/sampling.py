"""Drawing images from a loaded model, one batch at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddpm.checkpoint import LoadedModel
from ddpm.console import UserError
from ddpm.device import Runtime
from ddpm.images import IMAGE_SHAPE
from ddpm.randomness import ImageNoise
from ddpm.samplers import SamplerParams, Step, sample_loop, spaced_timesteps


def draw_batch(
    loaded: LoadedModel, params: SamplerParams, seed: int, indices: Sequence[int], runtime: Runtime
) -> Iterator[Step]:
    """The steps of the reverse process for the images `indices`; image i is that of (seed, i) in any batch.

    The last step's `x_prev` is the images, shape (len(indices), 1, 28, 28), on the runtime's device.

    Raises:
        UserError: params.steps exceeds the model's timesteps.
    """
    check_steps(loaded, params)
    noise = ImageNoise(seed, indices, IMAGE_SHAPE, runtime.device)

    def predict_noise(x_t: Tensor, t: Tensor) -> Tensor:
        with runtime.autocast():
            pred_noise: Tensor = loaded.model(x_t, t)
        return pred_noise.float()

    steps = sample_loop(predict_noise, loaded.schedule, params, noise)
    while True:
        with torch.inference_mode():  # entered anew for each step, so that it never leaks into the caller
            step = next(steps, None)
        if step is None:
            return
        yield step


def batches(first: int, count: int, size: int) -> Iterator[range]:
    """The indices first, first + 1, ..., `count` of them, in ranges of at most `size`."""
    for start in range(first, first + count, size):
        yield range(start, min(start + size, first + count))


def check_steps(loaded: LoadedModel, params: SamplerParams) -> int:
    """Number of steps that `params` means for this model.

    Raises:
        UserError: more steps than the model has timesteps.
    """
    try:
        return len(spaced_timesteps(loaded.schedule, params.steps, params.spacing))
    except ValueError as error:
        raise UserError(str(error)) from None
