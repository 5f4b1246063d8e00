"""Gradient descent: optimizers, learning rate schedule and EMA of the weights."""

import copy
import math
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from ddpm.networks.unet import UNet
from ddpm.training.muon import Muon
from exact_stages.params import Section


class OptimizationParams(Section):
    """Optimizer, learning rate and EMA; params.yaml explains each choice."""

    optimizer: Literal["adam", "muon"]
    lr: Annotated[float, Field(gt=0, le=1)]
    lr_decay: Literal["none", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]


class Optimization:
    """Optimizers, learning rate and EMA of a network that is already on its device."""

    def __init__(self, network: UNet, params: OptimizationParams, total_steps: int) -> None:
        self.network = network
        self.params = params
        self.total_steps = total_steps
        self.steps = 0  # steps taken
        self.ema = copy.deepcopy(network) if params.ema_decay else None
        self.optimizers = self._optimizers()

    @property
    def model(self) -> UNet:
        """Return the network with EMA weights, or the trained network itself without EMA."""
        return self.ema or self.network

    @torch.no_grad()
    def step(self) -> None:
        """Take one optimizer step, then update the EMA. EMA decay warms up, so that the initial weights are forgotten.

        BatchNorm statistics are copied, not averaged. torch's AveragedModel would synchronise with the GPU each step.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(self.steps)
            optimizer.step()
        self.steps += 1
        if self.ema:
            decay = min(self.params.ema_decay, (1 + self.steps) / (10 + self.steps)) if self.steps > 1 else 0.0
            torch._foreach_lerp_([*self.ema.parameters()], [*self.network.parameters()], 1 - decay)
            torch._foreach_copy_([*self.ema.buffers()], [*self.network.buffers()])

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0: linear warm-up, times 1 or half a cosine down to zero."""
        warmup = min(1.0, (step + 1) / (self.params.warmup_steps + 1))
        decay = 1.0
        if self.params.lr_decay == "cosine":
            decay = 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        return self.params.lr * warmup * decay

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
        network, kind = self.network, self.network.time_table.device.type
        adam = partial(torch.optim.Adam, lr=self.params.lr, fused=kind != "mps")
        if self.params.optimizer == "adam":
            return [adam(network.parameters())]
        outer = {*network.stem.parameters(), *network.head.parameters()}
        hidden = [weight for weight in network.parameters() if weight.ndim == 4 and weight not in outer]
        others = [weight for weight in network.parameters() if weight.ndim != 4 or weight in outer]
        return [Muon(hidden, self.params.lr), adam(others)]
