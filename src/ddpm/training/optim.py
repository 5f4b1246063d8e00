"""Gradient descent: the optimizers, the learning rate over time, and the averaged weights, which are what is kept."""

import copy
import math
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.capture import captured
from ddpm.networks.unet import UNet
from ddpm.pipeline.params import Section
from ddpm.training.muon import Muon


class OptimizationParams(Section):
    """How the weights move; see params.yaml for what each choice means."""

    optimizer: Literal["adam", "muon"]
    lr: Annotated[float, Field(gt=0, le=1)]
    lr_decay: Literal["none", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]


class Optimization:
    """Moves the weights of a network, which is on its device already, against their gradients."""

    def __init__(self, network: UNet, params: OptimizationParams, total_steps: int) -> None:
        self.network = network
        self.params = params
        self.total_steps = total_steps
        self.steps = 0  # taken
        self.average = copy.deepcopy(network) if params.ema_decay else None
        device = network.time_table.device
        self._lr = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        self._pull = torch.zeros((), device=device)  # how far the average moves toward the weights
        self.optimizers = self._optimizers()
        self.record_anew()

    @property
    def model(self) -> UNet:
        """The network with the averaged weights, or as it is where nothing is averaged."""
        return self.average or self.network

    def step(self) -> None:
        """Take one step, and let the average follow; a young one moves faster, and does not remember the start."""
        self._lr.fill_(self.learning_rate(self.steps))
        self.steps += 1
        decay = min(self.params.ema_decay, (1 + self.steps) / (10 + self.steps)) if self.steps > 1 else 0.0
        self._pull.fill_(1 - decay)
        self._update()

    def record_anew(self) -> None:
        """Forget a recording of the steps, where they are replayed: gradients are to come from another place."""
        self._update = captured(self._move, self._lr.device)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over warmup_steps, then constant or half a cosine down to zero; `step` counts from 0."""
        warmup = min(1.0, (step + 1) / (self.params.warmup_steps + 1))
        decay = 1.0
        if self.params.lr_decay == "cosine":
            decay = 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        return self.params.lr * warmup * decay

    def state(self) -> dict[str, Tensor]:
        """All that changes; the tensors but for the number of steps are not copies."""
        state = {"steps": torch.tensor(self.steps)}
        for number, module in enumerate(self._modules()):
            state |= {f"module.{number}.{name}": weight for name, weight in module.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                state |= {f"optimizer.{number}.{index}.{name}": value for name, value in values.items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from where another Optimization with the same arguments was; further names are left alone.

        Raises:
            RuntimeError: the state is of another network.
        """
        self.steps = int(state["steps"])
        for number, module in enumerate(self._modules()):
            module.load_state_dict(below(f"module.{number}.", state))
        for number, optimizer in enumerate(self.optimizers):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            for index, weight in enumerate(weights):
                values = below(f"optimizer.{number}.{index}.", state)
                optimizer.state[weight] = {name: _like(weight, value) for name, value in values.items()}

    def _modules(self) -> list[torch.nn.Module]:
        return [self.network, self.average] if self.average else [self.network]

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for everything, or Muon for the weights of convolutions but stem and head, and Adam for the rest."""
        network, kind = self.network, self.network.time_table.device.type
        adam = partial(torch.optim.Adam, lr=self._lr, fused=kind != "mps", capturable=kind == "cuda")
        if self.params.optimizer == "adam":
            return [adam(network.parameters())]
        outer = {*network.stem.parameters(), *network.head.parameters()}
        hidden = [weight for weight in network.parameters() if weight.ndim == 4 and weight not in outer]
        others = [weight for weight in network.parameters() if weight.ndim != 4 or weight in outer]
        return [Muon(hidden, self._lr), adam(others)]

    @torch.no_grad()
    def _move(self) -> None:
        """Move the weights, and the average toward them, by rates that are on the device.

        Statistics of BatchNorm are not averaged. torch's AveragedModel would make a GPU wait in every step.
        """
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average:
            for average, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
                average.lerp_(weight, self._pull)
            torch._foreach_copy_([*self.average.buffers()], [*self.network.buffers()])


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of the state whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _like(weight: Tensor, value: Tensor) -> Tensor:
    """A copy of an optimizer's `value`, in the memory format and on the device of the weight that it belongs to."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value.clone().to(weight.device)
