"""Networks of which no weight is as it begins, and what to give them, for tests."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def randomised(module: Network, seed: int = 0) -> Network:
    """All weights and running statistics away from their starting values, none of them zero."""
    rng = torch.Generator().manual_seed(seed)
    for name, weight in module.state_dict().items():
        if "running_var" in name:
            weight.uniform_(0.5, 1.5, generator=rng)
        elif weight.is_floating_point():
            weight.normal_(0, 0.3, generator=rng)
    return module


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
