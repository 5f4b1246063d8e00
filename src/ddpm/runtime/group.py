"""The processes that train together: each takes its share of every batch, and all hold the same weights.

torch's launcher starts them and tells each its place in environment variables; one process alone is a group too.
"""

import atexit
import os
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

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

    def any(self, flag: bool) -> bool:
        """Whether it is true in some process."""
        if self.size == 1:
            return flag
        flags: list[bool] = [False] * self.size
        dist.all_gather_object(flags, flag)
        return any(flags)

    def from_first(self, value: T) -> T:
        """What `value` is in the process of rank 0; the others' is ignored."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]


ALONE = Group()


def launched() -> bool:
    """Whether torch's launcher has started this process."""
    return dist.is_torchelastic_launched()


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
