"""The shards of a batch, and the processes that share them.

A batch is cut into shards. Their results are added as a fixed tree, (s0 + s1) + (s2 + s3), so the bytes of a sum do not
depend on how many processes there are.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

SHARDS = 4  # of a batch on CPUs


class Group(Protocol):
    """The processes that share a step: each computes the results of its own shards. Here one has all."""

    @property
    def size(self) -> int:
        """Return the number of processes."""
        return 1

    def own_shards(self, shards: int) -> range:
        """Return which of the shards this process computes: equally many in each process, but for the last ones."""
        return range(shards)

    def results(self, shards: int, length: int, device: torch.device) -> Sequence[Tensor]:
        """Return a row, (length,), for each of this process's shards; the memory is the group's, and not zeroed."""
        return torch.empty(shards, length, device=device).unbind()

    def gathered(self, results: Sequence[Tensor], shards: int) -> Sequence[Tensor]:
        """Return the `results` of all shards, in their order, to read until the next call of this method."""
        return results


class Alone(Group):
    """The group of one process."""


ALONE = Alone()


def sums(world: Group, shards: int, length: int, device: torch.device) -> list[Tensor]:
    """Return zeros, (length,), for each of this process's shards to add to.

    Neighbours of one process add to the same numbers: that is the first level of the tree.
    """
    share = _shards_a_row(shards, world)
    rows = world.results(-(-shards // share), length, device)
    return [row for each in rows for row in [each.zero_()] * share]


def total(world: Group, found: Sequence[Tensor], shards: int) -> Tensor:
    """Return the sum of the `sums` of all processes, (length,)."""
    share = _shards_a_row(shards, world)
    rows = world.gathered(found[::share], -(-shards // share))
    while len(rows) > 1:
        pairs = [rows[place : place + 2] for place in range(0, len(rows), 2)]
        rows = [torch.add(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return rows[0]


def _shards_a_row(shards: int, world: Group) -> int:
    """Return 2 if the shards 0 and 1, 2 and 3 ... are always of one process, or 1."""
    return 2 - -(-shards // world.size) % 2


def shards_on_cpu(block: str, batch_size: int) -> int:
    """Return the number of shards of a batch on CPUs, for any number of processes; BatchNorm needs whole batches."""
    return 1 if block == "double_conv" else min(SHARDS, batch_size)


def images_of(shard: int, shards: int, count: int) -> slice:
    """Return which of `count` images a shard has."""
    return slice(shard * count // shards, (shard + 1) * count // shards)
