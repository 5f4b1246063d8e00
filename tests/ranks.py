"""Work in two processes that are a world, for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing

from ddpm.parallel.world import World

Work = Callable[[World], object]


def in_two_ranks(work: Work, folder: Path) -> list[Any]:
    """What the function, of a module, gives in each of the two."""
    multiprocessing.spawn(_joined, (work, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _joined(rank: int, work: Work, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(work(World(rank, 2)), folder / f"{rank}.pt")
    dist.destroy_process_group()
