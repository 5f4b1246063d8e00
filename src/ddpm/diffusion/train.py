"""Training: algorithm 1 of Ho et al. 2020 (arXiv:2006.11239).

Curves, validation and checkpoints stand around the loop, in training.py.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .denoiser import Denoiser, Prediction
from .optim import Optimization
from .randomness import generator
from .schedule import NoiseSchedule
from .shards import ALONE, Group, images_of, sums, total
from .timesteps import draw_timesteps

# (the prediction for some images of a batch, their noise, which they are) -> the noise to predict, (B, C, H, W)
Target = Callable[[Prediction, Tensor, slice], Tensor]


class Batch(NamedTuple):
    """Images in [-1, 1], (B, C, H, W), their labels, (B,), and what to predict; None: their noise."""

    x_start: Tensor
    labels: Tensor
    target: Target | None = None


def train_loop(
    denoiser: Denoiser,
    optimization: Optimization,
    batches: Iterable[Batch],
    *,
    cdf: Tensor,
    weights: Tensor,
    timestep_sampling: str = "stratified",
    seed: int = 0,
    shards: int = 1,
    world: Group = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Take a step of `optimization` for each batch. Sample with `optimization.model`, the averaged weights.

    Yield t and the detached loss of every image of the batch, each (B,). This loss is always the error of the noise
    (eq. 14), whatever is minimised, so that curves compare. At every yield, the state of `optimization` is complete.

    Args:
        batches: as many as the total_steps of `optimization`, whose learning rate ends there; on one device, like the
            network, cdf and weights.
        cdf: the distribution of t, (T,); see `timestep_cdf`.
        weights: the weight of the loss at each t, (T,); see `loss_weights`.
        seed: of t and noise, together with the number of the step.
        shards: how many shards a batch has. The sum of their gradients is that of the batch.
        world: the processes that share the shards.
    """
    for x_start, labels, target in batches:  # line 2: x_0 ~ q(x_0)
        count, device = len(x_start), x_start.device
        rng = generator(seed, "train", optimization.steps, device)
        t = draw_timesteps(count, cdf, timestep_sampling, rng)  # line 3: t
        noise = torch.randn(x_start.shape, generator=rng, device=device)  # line 4: eps ~ N(0, I)
        results = sums(world, shards, count + optimization.size, device)  # losses and gradient of each shard
        for result, shard in zip(results, world.own_shards(shards), strict=False):
            some = images_of(shard, shards, count)
            optimization.set_gradient(result[count:])  # to which `backward` adds
            x_t = denoiser.schedule.q_sample(x_start[some], t[some], noise[some])  # eq. 4
            predicted = denoiser(x_t, t[some], labels[some])
            wanted = target(predicted, noise[some], some) if target else noise[some]
            loss = weights[t[some]] * mean_squared_error(predicted.noise, wanted)
            (loss.sum() / count).backward()  # line 5: the gradient
            result[some] = mean_squared_error(predicted.noise.detach(), noise[some])
        losses, gradient = total(world, results, shards).tensor_split([count])
        optimization.step(gradient, world)  # line 5: the step
        yield t, losses


def mean_squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of each image, (B,), from (B, C, H, W)."""
    return F.mse_loss(found, wanted, reduction="none").mean(dim=(1, 2, 3))


def loss_weights(loss: str, schedule: NoiseSchedule) -> Tensor:
    """Return the weight of the error of the noise at each t, (T,): 1 for the loss "noise", 1 / alphas_cumprod for "v".

    The error of v is the error of the noise divided by alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512, section
    4). It gives more weight to noisy images, which decide the shapes.
    """
    if loss not in ("noise", "v"):
        raise ValueError(f"loss: {loss}; choose noise or v")
    return 1 / schedule.alphas_cumprod if loss == "v" else torch.ones_like(schedule.alphas_cumprod)
