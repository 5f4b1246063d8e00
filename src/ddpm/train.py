"""Training: algorithm 1 of Ho et al. 2020 (arXiv:2006.11239).

What it trains on is drawn in `ddpm.training.draws`. Curves, validation and checkpoints stand around the loop, in
`ddpm.training.run`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.denoiser import Denoiser
from ddpm.optim import Optimization
from ddpm.training.draws import Draws


def train_loop(
    denoiser: Denoiser, optimization: Optimization, draws: Draws, weights: Tensor, shards: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Take the steps that remain of `optimization`.

    Yield t and the detached loss of every image of the batch, each (B,). This loss is always the error of the noise
    (eq. 14), whatever is minimised, so that curves compare. At every yield, the state of `optimization` is complete.

    Args:
        weights: the weight of the loss at each t, (T,); see `loss_weights`.
        shards: the number of parts of a batch. The sum of their gradients is the gradient of the batch.
    """
    for rows in draws.batches(optimization.steps, optimization.total_steps):  # line 2: x_0 ~ q(x_0)
        batch = draws.draw(rows, optimization.steps)  # lines 3 and 4: t, eps
        losses = torch.zeros(len(rows), device=batch.t.device)
        for part in optimization.shards(losses, shards):  # it zeroes gradients, and adds up those of all processes
            shard = batch.take(part)
            x_t = denoiser.schedule.q_sample(shard.x_start, shard.t, shard.noise)  # eq. 4
            predicted = denoiser(x_t, shard.t, shard.labels)
            target = shard.target(x_t, predicted.signal, predicted.spread)  # eps, or its mean given x_t
            loss = weights[shard.t] * mean_squared_error(predicted.noise, target)
            (loss.sum() / len(rows)).backward()  # line 5: the gradient
            losses[part] = mean_squared_error(predicted.noise.detach(), shard.noise)
        optimization.step()  # line 5: the step
        yield batch.t, losses


def mean_squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of each image, (B,), from (B, C, H, W)."""
    return F.mse_loss(found, wanted, reduction="none").mean(dim=(1, 2, 3))


def loss_weights(loss: str, denoiser: Denoiser) -> Tensor:
    """Return the weight of the error of the noise at each t, (T,): 1 for the loss "noise", 1 / alphas_cumprod for "v".

    The error of v is the error of the noise divided by alphas_cumprod (Salimans and Ho 2022, arXiv:2202.00512, section
    4). It gives more weight to noisy images, which decide the shapes.
    """
    alphas_cumprod = denoiser.schedule.alphas_cumprod
    return 1 / alphas_cumprod if loss == "v" else torch.ones_like(alphas_cumprod)
