"""Gradient descent: Muon, Adam, the learning rate and the EMA of the weights.

Muon is an optimizer for weight matrices, with orthogonal updates: Jordan et al. 2024, "Muon: An optimizer for hidden
layers in neural networks". torch.optim.Muon takes only 2D weights. It multiplies in bfloat16, which is slow on
processors without bfloat16 instructions.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from .shards import ALONE, SHARDS, Group
from .unet import UNet

MOMENTUM = 0.95  # of Muon
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration, from the same authors
ITERATIONS = 5


class Optimization:
    """Optimizers, learning rate and EMA of a network that is already on its device."""

    def __init__(
        self,
        network: UNet,
        total_steps: int,
        *,
        optimizer: Literal["adam", "muon"] = "muon",
        lr: float = 0.003,
        lr_decay: Literal["none", "cosine"] = "cosine",
        warmup_steps: int = 0,
        ema_decay: float = 0.999,
    ) -> None:
        """Begin with the weights of the network.

        Args:
            lr: the peak learning rate.
            warmup_steps: steps of linear warm-up.
            ema_decay: the highest decay per step of the averaged weights; 0: no average.
        """
        self.network = network
        self.total_steps = total_steps
        self.lr = lr
        self.lr_decay = lr_decay
        self.warmup_steps = warmup_steps
        self.ema_decay = ema_decay
        self.steps = 0  # steps taken
        self.ema = copy.deepcopy(network) if ema_decay else None
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.size = sum(weight.numel() for weight in self.weights)
        self.optimizers = self._optimizers(optimizer)

    @property
    def model(self) -> UNet:
        """Return the network with EMA weights, or the trained network itself without EMA."""
        return self.ema or self.network

    def set_gradient(self, gradient: Tensor) -> None:
        """Make the gradients of the weights views of a flat one, (size,)."""
        for weight, own in zip(self.weights, gradient.split([each.numel() for each in self.weights]), strict=True):
            weight.grad = own.as_strided(weight.shape, weight.stride())  # in the memory format of the weight

    @torch.no_grad()
    def step(self, gradient: Tensor, world: Group = ALONE) -> None:
        """Take one step along a flat gradient, (size,), the same in all processes; then update the EMA.

        EMA decay warms up, so that the initial weights are forgotten. BatchNorm statistics are copied, not averaged.
        torch's AveragedModel would synchronise with the GPU each step.
        """
        self.set_gradient(gradient)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(self.steps)
            if isinstance(optimizer, Muon):
                optimizer.step(world=world)
            else:
                optimizer.step()
        self.steps += 1
        if self.ema:
            decay = min(self.ema_decay, (1 + self.steps) / (10 + self.steps)) if self.steps > 1 else 0.0
            torch._foreach_lerp_([*self.ema.parameters()], [*self.network.parameters()], 1 - decay)
            torch._foreach_copy_([*self.ema.buffers()], [*self.network.buffers()])

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0: linear warm-up, times 1 or half a cosine down to zero."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.total_steps)) if self.lr_decay == "cosine" else 1.0
        return self.lr * warmup * decay

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during the training."""
        return {
            "steps": self.steps,
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict() if self.ema else {},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another Optimization with the same arguments."""
        self.steps = state["steps"]
        self.network.load_state_dict(state["network"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        for optimizer, each in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(each)

    def _optimizers(self, name: str) -> list[torch.optim.Optimizer]:
        """Build Adam for all weights; or Muon for the convolutions between stem and head, and Adam for the rest."""
        network, adam = self.network, partial(torch.optim.Adam, lr=self.lr, fused=True)
        if name == "adam":
            return [adam(network.parameters())]
        if name != "muon":
            raise ValueError(f"optimizer: {name}; choose adam or muon")
        outer = {*network.stem.parameters(), *network.head.parameters()}
        hidden = [weight for weight in network.parameters() if weight.ndim == 4 and weight not in outer]
        others = [weight for weight in network.parameters() if weight.ndim != 4 or weight in outer]
        return [Muon(hidden, self.lr), adam(others)]


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum: the singular values of an update are near 1, see `orthogonalise`.

    Updates are scaled to the root mean square of Adam's, 0.2, so one learning rate serves both (Liu et al. 2025,
    arXiv:2502.16982, section 2.2).
    """

    def __init__(self, weights: Iterable[Tensor], lr: float) -> None:
        """Take weights of two or more dimensions. As matrices, they have a row for each index of the first."""
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None, world: Group = ALONE) -> None:  # type: ignore[override]
        """Update every weight; the processes of the world share the work."""
        for group in self.param_groups:
            updates = []
            for weight in group["params"]:
                if not (state := self.state[weight]):
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                update = weight.grad.lerp(momentum, MOMENTUM)
                updates.append(update.movedim(1, -1).flatten(1))  # channels last, as in memory: without a copy
            for weight, update in zip(group["params"], shared_out(updates, world), strict=True):
                scale = 0.2 * max(update.shape) ** 0.5
                update = update.view(weight.movedim(1, -1).shape).movedim(-1, 1)
                weight.add_(update, alpha=-group["lr"] * scale)


def shared_out(updates: Sequence[Tensor], world: Group) -> Sequence[Tensor]:
    """Orthogonalise matrices; on CPUs in SHARDS groups, which the processes share."""
    if updates[0].device.type != "cpu":
        return orthogonalise(updates)
    groups = even_groups([min(each.shape) * each.numel() for each in updates], SHARDS)
    sizes = [[updates[place].numel() for place in group] for group in groups]
    results = world.results(len(groups), max(map(sum, sizes)), updates[0].device)
    for result, number in zip(results, world.own_shards(len(groups)), strict=False):
        found = orthogonalise([updates[place] for place in groups[number]])
        torch.cat([each.flatten() for each in found], out=result[: sum(sizes[number])])
    every = [*updates]
    for result, group, lengths in zip(world.gathered(results, len(groups)), groups, sizes, strict=True):
        for place, update in zip(group, result[: sum(lengths)].split(lengths), strict=True):
            every[place] = update.view_as(updates[place])
    return every


def even_groups(costs: Sequence[int], most: int) -> list[list[int]]:
    """Divide things into at most `most` groups of nearly equal cost: the costliest first, to the cheapest group."""
    groups: list[list[int]] = [[] for _ in range(min(most, len(costs)))]
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        min(groups, key=lambda group: sum(costs[each] for each in group)).append(place)
    return groups


def orthogonalise(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return nearly U V^T for the singular value decomposition U S V^T of each matrix.

    The singular values of the result are between 0.68 and 1.2, but for those that were nearly 0: five iterations
    enlarge them at most 485 times. The iteration runs on x x^T, the smaller matrix, and x is multiplied once, at the
    end. Matrices of equal size are iterated together: the GPU is launch-bound here.
    """
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    found = [*matrices]
    for side in {len(x): None for x in wide}:
        places = [place for place, x in enumerate(wide) if len(x) == side]
        gram = torch.stack([wide[place] @ wide[place].T for place in places])
        norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt().view(-1, 1, 1) + 1e-7  # of x; no singular value exceeds it
        for place, product in zip(places, _iterated(gram / norm.square()) / norm, strict=True):
            x = product @ wide[place]
            found[place] = x if x.shape == matrices[place].shape else x.T
    return found


def _iterated(gram: Tensor) -> Tensor:
    """Return the matrices, (B, N, N), that take x near U V^T from the left, given x x^T (B, N, N)."""
    product = factor = _factor(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product


def _factor(gram: Tensor) -> Tensor:
    """Return the matrices that take x to the next x from the left, a + b gram + c gram^2."""
    a, b, c = NEWTON_SCHULZ
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor
