"""Communicate between processes that work together; each does some of the shards.

A single process is a world of one. Others are the workers of `ddpm.processes.workers`, or torchrun's:
DDPM_LAUNCH="torchrun --nproc-per-node N" dvc repro train sample
"""

import atexit
import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

from exact_stages.console import UserError

T = TypeVar("T")


class OtherProcessEnded(SystemExit):
    """Another process of the world has ended; it reports the error."""


class World(NamedTuple):
    """The `rank` of this process among `size` processes."""

    rank: int = 0
    size: int = 1

    def own_shards(self, shards: int) -> range:
        """Return which shards of a work this process does: equally many in each, but for the last ones."""
        each = -(-shards // self.size)
        return range(shards)[self.rank * each : (self.rank + 1) * each]

    def results(self, shards: int, length: int, device: torch.device) -> Tensor:
        """Return zeros, a row for the result of each of this process's `own_shards`, (ceil(shards / size), length)."""
        return torch.zeros(-(-shards // self.size), length, device=device)

    def gathered(self, results: Tensor, shards: int) -> Tensor:
        """Return the results of all processes in the order of the shards, (shards, D); see `results`."""
        if self.size == 1:
            return results
        found = results.new_empty(self.size * len(results), *results.shape[1:])
        with _ending_together():
            dist.all_gather_single(found, results)
        return found[:shards]

    def total(self, results: Tensor, shards: int) -> Tensor:
        """Return the sum of the results of all shards, (D,), added in their order, whoever has computed them."""
        first, *later = self.gathered(results, shards)
        total = first.clone()
        for each in later:
            total += each
        return total

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in order of rank; transfers go through the CPU."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _ending_together():
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, compute: Callable[[], T]) -> T:
        """Return what rank 0 computes; transfers go through the CPU."""
        found: list[Any] = self.gather(compute() if self.rank == 0 else None)
        return cast(T, found[0])

    def check_equal(self, fingerprint: str) -> None:
        """Check that one process of each machine has the same fingerprint of code, params and inputs; others have "".

        Raises:
            UserError: the fingerprints differ.
        """
        if len({*self.gather(fingerprint)} - {""}) > 1:
            raise UserError("torchrun: machines differ in code, params, data or torch; make them equal")


def rank() -> int:
    """Return the rank of this process under torchrun, or 0 for a single process."""
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def role() -> tuple[bool, bool]:
    """Return whether this process writes the outputs of its stage, as rank 0, and whether it leads its machine."""
    return rank() == 0, rank() == 0 or os.environ.get("LOCAL_RANK") == "0"


def join(device: torch.device) -> World:
    """Join the processes that torchrun started, and wait for all of them.

    Args:
        device: the device of tensors to sum. NCCL sums on GPUs; gloo does everything else.
    """
    size = int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return World(rank(), size)


ALONE = World()


@contextlib.contextmanager
def _ending_together() -> Iterator[None]:
    """End this process silently if another one has ended; that one reports the error.

    Raises:
        SystemExit: the connection to another process broke.
    """
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in ("closed by peer", "reset by peer", "Broken pipe")):
            traceback.clear_frames(error.__traceback__)  # which hold connections open: a third process would wait
            raise OtherProcessEnded(1) from None
        raise
