"""Gradient descent: Muon, Adam, the learning rate and the EMA of the weights.

Muon is an optimizer for weight matrices, with orthogonal updates: Jordan et al. 2024, "Muon: An optimizer for hidden
layers in neural networks". torch.optim.Muon takes only 2D weights. It multiplies in bfloat16, which is slow on
processors without bfloat16 instructions.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.world import ALONE
from ddpm.unet import UNet, UNetParams
from exact_stages.params import Section

MOMENTUM = 0.95  # of Muon
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration, from the same authors
ITERATIONS = 5
SHARDS = 4  # of a batch on CPUs


class OptimizationParams(Section):
    """Optimizer, learning rate and EMA; params.yaml explains each choice."""

    optimizer: Literal["adam", "muon"]
    lr: Annotated[float, Field(gt=0, le=1)] | None
    lr_decay: Literal["none", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]


class Optimization:
    """Optimizers, learning rate and EMA of a network that is already on its device."""

    def __init__(self, network: UNet, params: OptimizationParams, total_steps: int) -> None:
        assert params.lr, "choose the rate first, see TrainParams.for_images"
        self.lr = params.lr
        self.network = network
        self.params = params
        self.total_steps = total_steps
        self.steps = 0  # steps taken
        self.world = ALONE  # the processes that share the steps
        self.ema = copy.deepcopy(network) if params.ema_decay else None
        self.optimizers = self._optimizers()

    @property
    def model(self) -> UNet:
        """Return the network with EMA weights, or the trained network itself without EMA."""
        return self.ema or self.network

    @torch.no_grad()
    def step(self) -> None:
        """Take one optimizer step in all processes of the world at once, then update the EMA.

        EMA decay warms up, so that the initial weights are forgotten. BatchNorm statistics are copied, not averaged.
        torch's AveragedModel would synchronise with the GPU each step.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(self.steps)
            if isinstance(optimizer, Muon):
                optimizer.world = self.world
            optimizer.step()
        self.steps += 1
        if self.ema:
            decay = min(self.params.ema_decay, (1 + self.steps) / (10 + self.steps)) if self.steps > 1 else 0.0
            torch._foreach_lerp_([*self.ema.parameters()], [*self.network.parameters()], 1 - decay)
            torch._foreach_copy_([*self.ema.buffers()], [*self.network.buffers()])

    def shards(self, losses: Tensor, pieces: int) -> Iterator[slice]:
        """Yield the parts of a batch that this process computes; then add up what all processes have computed.

        For each part, the caller adds the gradient of its images to the weights, and sets their `losses`, (B,). At the
        end, all processes have the sum of all gradients, and all losses. On CPUs the parts are added in their order,
        so the bytes do not depend on which process computes which.

        Args:
            pieces: how many parts the batch is divided into, at least as many as there are processes.
        """
        count = len(losses)
        own = [slice(piece * count // pieces, (piece + 1) * count // pieces) for piece in self.world.own(pieces)]
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        if losses.device.type != "cpu":
            self.network.zero_grad(set_to_none=True)
            yield from own
            self.world.sum([losses, *(weight.grad for weight in weights if weight.grad is not None)])
            return
        rows = self.world.rows(pieces, count + sum(weight.numel() for weight in weights))
        for row, part in zip(rows, own, strict=False):
            self.network.zero_grad(set_to_none=True)
            yield part
            row[part] = losses[part]
            grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
            torch.cat([grad.flatten() for grad in grads], out=row[count:])
        total = self.world.total(rows, pieces)
        losses.copy_(total[:count])
        for weight, grad in zip(weights, total[count:].split([weight.numel() for weight in weights]), strict=True):
            weight.grad = torch.empty_like(weight).copy_(grad.view_as(weight))

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0: linear warm-up, times 1 or half a cosine down to zero."""
        warmup = min(1.0, (step + 1) / (self.params.warmup_steps + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.total_steps)) if self.params.lr_decay == "cosine" else 1.0
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

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Build Adam for all weights; or Muon for the convolutions between stem and head, and Adam for the rest."""
        network, adam = self.network, partial(torch.optim.Adam, lr=self.lr, fused=True)
        if self.params.optimizer == "adam":
            return [adam(network.parameters())]
        outer = {*network.stem.parameters(), *network.head.parameters()}
        hidden = [weight for weight in network.parameters() if weight.ndim == 4 and weight not in outer]
        others = [weight for weight in network.parameters() if weight.ndim != 4 or weight in outer]
        return [Muon(hidden, self.lr), adam(others)]


def shards_on_cpu(model: UNetParams, batch_size: int) -> int:
    """Return the number of shards of a batch on CPUs, for any number of processes; BatchNorm needs whole batches."""
    return 1 if model.block == "double_conv" else min(SHARDS, batch_size)


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum: the singular values of an update are near 1, see `orthogonalise`.

    Updates are scaled to the root mean square of Adam's, 0.2, so one learning rate serves both (Liu et al. 2025,
    arXiv:2502.16982, section 2.2).
    """

    def __init__(self, weights: Iterable[Tensor], lr: float) -> None:
        """Take weights of two or more dimensions. As matrices, they are flattened from the second on."""
        super().__init__(weights, {"lr": lr})
        self.world = ALONE

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight."""
        for group in self.param_groups:
            updates = []
            for weight in group["params"]:
                if not (state := self.state[weight]):
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                updates.append(weight.grad.lerp(momentum, MOMENTUM).flatten(1))
            for weight, update in zip(group["params"], self._orthogonalised(updates), strict=True):
                scale = 0.2 * max(update.shape) ** 0.5
                weight.add_(update.view(weight.shape), alpha=-group["lr"] * scale)

    def _orthogonalised(self, updates: Sequence[Tensor]) -> Sequence[Tensor]:
        """Orthogonalise matrices; on CPUs in SHARDS groups, which the processes share."""
        if updates[0].device.type != "cpu":
            return orthogonalise(updates)
        groups = even_groups([min(each.shape) * each.numel() for each in updates], SHARDS)
        sizes = [[updates[place].numel() for place in group] for group in groups]
        rows = self.world.rows(len(groups), max(map(sum, sizes)))
        for row, number in zip(rows, self.world.own(len(groups)), strict=False):
            found = orthogonalise([updates[place] for place in groups[number]])
            torch.cat([each.flatten() for each in found], out=row[: sum(sizes[number])])
        every = [*updates]
        for row, group, own in zip(self.world.gathered(rows, len(groups)), groups, sizes, strict=True):
            for place, part in zip(group, row[: sum(own)].split(own), strict=True):
                every[place] = part.view_as(updates[place])
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
    wide = [x / (x.norm() + 1e-7) for x in wide]  # now no singular value exceeds 1
    found = [*matrices]
    for side in {len(x): None for x in wide}:
        places = [place for place, x in enumerate(wide) if len(x) == side]
        products = _iterated(torch.stack([wide[place] @ wide[place].T for place in places]))
        for place, product in zip(places, products, strict=True):
            x = product @ wide[place]
            found[place] = x if x.shape == matrices[place].shape else x.T
    return found


def _iterated(gram: Tensor) -> Tensor:
    """Return the matrices, (B, N, N), that take x near U V^T from the left, given x x^T (B, N, N)."""
    a, b, c = NEWTON_SCHULZ
    product = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype).expand_as(gram)
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)  # a + b gram + c gram^2; the next x is factor @ x
        product, gram = factor @ product, factor @ gram @ factor
    return product
