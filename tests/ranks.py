"""Work in two processes that are a world, as torchrun would have started them, for tests."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from ddpm.compute.world import World, join

Work = Callable[[World], object]


def in_two_ranks(work: Work, folder: Path) -> list[Any]:
    """What the function, of a module, gives in each of the two."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    multiprocessing.spawn(_joined, (port, work, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def _joined(rank: int, port: int, work: Work, folder: Path) -> None:
    torch.set_num_threads(1)
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(TORCHELASTIC_RUN_ID="test", **{name: str(value) for name, value in given.items()})
    torch.save(work(join(torch.device("cpu"))), folder / f"{rank}.pt")
