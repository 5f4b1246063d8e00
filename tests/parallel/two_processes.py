"""Work in two processes that are a group, for tests."""

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ddpm.parallel.group import Group, join, place

Work = Callable[[Group], object]


def in_two_processes(work: Work, folder: Path) -> list[Any]:
    """What the function gives in each of the two."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=joined, args=(rank, port, work, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def joined(rank: int, port: int, work: Work, folder: Path) -> None:
    """One of two processes, as torch's launcher would have started it."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment["TORCHELASTIC_RUN_ID"] = "test"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, str(value))
        group = place()
        join(group, torch.device("cpu"))
    torch.save(work(group), folder / f"{rank}.pt")
