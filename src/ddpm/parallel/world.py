"""The processes that torchrun has started for one stage: in training each has a share of every batch.

A stage that runs alone is a world of one. `stages.train` and `stages.sample` run in several, by
DDPM_LAUNCH="torchrun --nproc-per-node N" dvc repro train sample
"""

import atexit
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ddpm.pipeline.console import UserError
from ddpm.pipeline.process import rank

T = TypeVar("T")


class World(NamedTuple):
    """The place of this process, `rank`, among `size`."""

    rank: int = 0
    size: int = 1

    def shard(self, count: int) -> slice:
        """Return this process's part of `count` things that all processes know."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, of one dtype, by its sum over the processes."""
        if self.size > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            with _ending_together():
                dist.all_reduce(flat)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, by rank, through the CPUs."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _ending_together():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0, through the CPUs."""
        return self.gather(value)[0]

    def agree(self, fingerprint: str) -> None:
        """Check that all processes read the same code, params and inputs, each on its own machine.

        Raises:
            UserError: they differ.
        """
        if len({*self.gather(fingerprint)}) > 1:
            raise UserError("torchrun: machines differ in code, params, data or torch; start all from the same")


def join(device: torch.device) -> World:
    """Wait until all processes are there.

    Args:
        device: of the tensors to sum, on a GPU by NCCL; everything else goes by gloo.
    """
    size = int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return World(rank(), size)


ALONE = World()


@contextlib.contextmanager
def _ending_together() -> Iterator[None]:
    """End this process when another has ended in the middle of its work: that one says why.

    Raises:
        SystemExit: it has.
    """
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in ("closed by peer", "reset by peer", "Broken pipe")):
            raise SystemExit(1) from None
        raise
