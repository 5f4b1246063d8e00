"""Build a network from the description and weights in a file, and trust neither."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddpm.pipeline.console import UserError, shown

MAX_HEADER = 1 << 20  # bytes of names, shapes and metadata; the default model has 6,000
Network = TypeVar("Network", bound=nn.Module)


def rebuild(path: Path, build: Callable[[], Network], weights: dict[str, Tensor]) -> Network:
    """Build a network and load its weights; names, shapes and types are compared before memory is allocated.

    Raises:
        UserError: weights have other names, shapes or types than the network, or are NaN or infinite.
    """
    with torch.device("meta"):
        expected = build().state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        wanted, given = _described(expected.get(name)), _described(weights.get(name))
        if wanted != given:
            raise UserError(
                f"{path}: the weights do not fit the network that the file describes: "
                f"{shown(name, 100)} is {given}, not {wanted}; fetch or train the model again"
            )
        if not weights[name].isfinite().all():
            raise UserError(f"{path}: {name} is not finite everywhere; fetch or train the model again")
    network = build()
    network.load_state_dict(weights)
    return network


def _described(weight: Tensor | None) -> str:
    return "absent" if weight is None else f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"
