"""Communicate between processes that work together; each does some of the shards.

A single process is a world of one. Others are the workers of `ddpm.processes.workers`, or torchrun's:
DDPM_LAUNCH="torchrun --nproc-per-node N" dvc repro train sample
"""

import atexit
import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

from ddpm.processes.exchange import Exchange, OtherProcessEnded
from exact_stages.console import UserError

T = TypeVar("T")


class World(NamedTuple):
    """The `rank` of this process among `size` processes, and the memory that they share, if they were forked."""

    rank: int = 0
    size: int = 1
    exchange: Exchange | None = None

    def own_shards(self, shards: int) -> range:
        """Return which shards of a work this process does: equally many in each, but for the last ones."""
        each = -(-shards // self.size)
        return range(shards)[self.rank * each : (self.rank + 1) * each]

    def results(self, shards: int, length: int, device: torch.device) -> Sequence[Tensor]:
        """Return a row, (length,), for each of this process's shards; in all processes, ceil(shards / size) of them."""
        if self.exchange and (rows := self.exchange.rows(-(-shards // self.size), length)) is not None:
            return rows[self.rank].unbind()
        return torch.empty(-(-shards // self.size), length, device=device).unbind()

    def gathered(self, results: Sequence[Tensor], shards: int) -> Sequence[Tensor]:
        """Return the `results` of all shards, in their order, to read until the next call of this method."""
        if self.size == 1:
            return results
        if self.exchange and (rows := self.exchange.rows(len(results), len(results[0]))) is not None:
            self.exchange.arrive(self.rank)
            return rows.flatten(0, 1)[:shards].unbind()
        own = torch.stack([*results])
        found = own.new_empty(self.size * len(own), own.shape[1])
        with _ending_together():
            dist.all_gather_single(found, own)
        return found[:shards].unbind()

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
