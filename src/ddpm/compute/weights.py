"""A network from its description and its weights, neither of which is trusted."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddpm.pipeline.console import UserError, shown

MAX_HEADER = 1 << 20  # bytes of names, shapes and metadata; those of the default have 6,000
Network = TypeVar("Network", bound=nn.Module)


def rebuild(path: Path, build: Callable[[], Network], weights: dict[str, Tensor]) -> Network:
    """The network that `build` makes, with the weights that the file has of it.

    Raises:
        UserError: the weights have other names, shapes or types, and no memory was taken for what the file claims; or
            one of them is NaN or infinite.
    """
    with torch.device("meta"):
        expected = build().state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        wanted, given = _described(expected.get(name)), _described(weights.get(name))
        if wanted != given:
            raise UserError(
                f"{path}: the weights do not fit the network that the file describes: "
                f"{shown(name, 100)} is {given} and not {wanted}"
            )
        if not weights[name].isfinite().all():
            raise UserError(f"{path}: {name} is not finite everywhere; fetch the file again, or train it anew")
    network = build()
    network.load_state_dict(weights)
    return network


def _described(weight: Tensor | None) -> str:
    return "absent" if weight is None else f"{str(weight.dtype).removeprefix('torch.')} {list(weight.shape)}"
