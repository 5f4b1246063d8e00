"""A network from its description and its weights, neither of which is trusted."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddpm.runtime.console import UserError

Network = TypeVar("Network", bound=nn.Module)


def rebuild(path: Path, build: Callable[[], Network], weights: dict[str, Tensor]) -> Network:
    """The network that `build` makes, with the weights that the file has of it.

    Raises:
        UserError: the weights have other names or shapes; no memory was taken for what the file claims.
    """
    with torch.device("meta"):
        described = {name: weight.shape for name, weight in build().state_dict().items()}
    if wrong := sorted(described.items() ^ {name: weight.shape for name, weight in weights.items()}.items()):
        raise UserError(f"{path}: the weights do not fit the network that the file describes ({wrong[0][0]})")
    network = build()
    network.load_state_dict(weights)
    return network
