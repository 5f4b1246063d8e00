"""The processes that train together: each takes its share of every batch, and all hold the same weights.

torch's launcher starts them and tells each its place in environment variables; one process alone is a group too.
"""

import atexit
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ddpm.runtime.console import UserError

T = TypeVar("T")


class Group(NamedTuple):
    """The place of this process, `rank`, among `size`."""

    rank: int = 0
    size: int = 1

    def share(self, count: int) -> slice:
        """Which of `count` things that all processes know are this one's."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, of one dtype, by its sum over the processes, the same in all of them."""
        if self.size > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """What `value` is in every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is true in some process."""
        return any(self.gather(flag))

    def agree(self, facts: dict[str, Any]) -> None:
        """See to it that all processes have the same facts: params, data and code, each on its own machine.

        Raises:
            UserError: they differ; the first process and the one that differs say in what.
            SystemExit: they differ, in another process.
        """
        first, *others = self.gather(facts)
        for rank, other in enumerate(others, start=1):
            if wrong := [name for name in sorted(first.keys() | other.keys()) if first.get(name) != other.get(name)]:
                if self.rank not in (0, rank):
                    raise SystemExit(1)
                values = f"{_short(other.get(wrong[0]))} where process 0 has {_short(first.get(wrong[0]))}"
                more = f", and {len(wrong) - 1} more differ" if wrong[1:] else ""
                raise UserError(f"process {rank} has {wrong[0]}: {values}{more}; start all from the same files")

    def from_first(self, value: T) -> T:
        """What `value` is in the process of rank 0; the others' is ignored."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]


ALONE = Group()


def _short(value: object) -> str:
    """As a message shows it; of hashes the beginning says enough."""
    return str(value)[:16]


def launched() -> bool:
    """Whether torch's launcher has started this process."""
    return dist.is_torchelastic_launched() and {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def place() -> Group:
    """The group that the launcher has put this process into; it works together only after `join`."""
    return Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched() else ALONE


def join(group: Group, device: torch.device) -> None:
    """Wait until all processes are there; each of a machine's takes a GPU of its own."""
    if group.size > 1:
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)  # else threads of its own may abort a process that ends
