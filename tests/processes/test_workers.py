"""Pieces of work in several processes: their results are those of one, and whatever ends one of them ends all."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
import torch
from torch import Tensor

from ddpm.processes.workers import add_progress, map_shards, run_in_processes
from ddpm.processes.world import ALONE, World
from exact_stages.console import UserError
from tests.small import CPU

SECONDS_TO_END = 15  # on a machine that is busy with other things
KILLED = r"^a worker was killed; .* DDPM_WORKERS"


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert psutil.Process().children() == []
    assert time.monotonic() - began < SECONDS_TO_END


@pytest.mark.parametrize("size", [1, 2, 3])
def test_results_come_in_the_order_of_the_pieces_and_progress_adds_up(
    size: int, allowed: Callable[[int], None]
) -> None:
    allowed(size)
    told: list[int] = []

    def work(shard: int) -> tuple[int, Tensor]:
        time.sleep(0.02 * (shard % 3))  # later ones end sooner
        add_progress(1)
        add_progress(shard)
        return os.getpid(), torch.full((2,), shard)

    found = [*map_shards(work, range(3, 20), told.append)]
    assert [each.tolist() for _, each in found] == [[shard] * 2 for shard in range(3, 20)]
    assert sum(told) == sum(range(3, 20)) + 17
    pids = {pid for pid, _ in found}
    assert (os.getpid() in pids) == (size == 1)
    assert len(pids) <= size
    assert [*map_shards(work, [])] == []
    add_progress(1)  # tells nobody
    assert sum(told) == sum(range(3, 20)) + 17


@pytest.mark.parametrize("size", [2, 3])
def test_processes_together_are_a_world_of_at_most_one_for_each_shard(
    size: int, allowed: Callable[[int], None]
) -> None:
    allowed(size)
    for shards in (2, 9):
        found = run_in_processes(ALONE, shards, lambda world: world.gather((world.rank, world.size, os.getpid())))
        count = min(size, shards)
        assert [each[:2] for each in found] == [(rank, count) for rank in range(count)]
        assert found[0][2] == os.getpid(), "what it changes stays"
        assert len({pid for *_, pid in found}) == count


@pytest.mark.parametrize("error", [ValueError("of shard 3"), UserError("of shard 3")], ids=repr)
@pytest.mark.parametrize("size", [1, 2])
def test_an_error_in_a_piece_is_raised_as_itself(error: Exception, size: int, allowed: Callable[[int], None]) -> None:
    allowed(size)

    def work(shard: int) -> int:
        if shard == 3:
            raise error
        if shard > 3:
            time.sleep(60)  # nobody waits for it
        return shard

    found = list[int]()
    with pytest.raises(type(error), match=r"^of shard 3$"):  # noqa: PT012
        for each in map_shards(work, range(9)):
            found.append(each)
    assert found == [0, 1, 2]


def test_who_wants_no_further_piece_waits_for_none(allowed: Callable[[int], None]) -> None:
    allowed(2)
    for _ in map_shards(lambda shard: time.sleep(60 * shard), range(4)):
        break


def exchange(world: World) -> None:
    world.gathered(world.results(world.size, 5, CPU.device), world.size)


@pytest.mark.parametrize("length", [0, 5], ids=["messages", "memory"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_error_of_one_process_of_a_world_is_what_the_caller_gets(
    rank: int, length: int, allowed: Callable[[int], None]
) -> None:
    allowed(3)

    def work(world: World) -> None:
        exchange(world)
        if world.rank == rank:
            raise UserError(f"of rank {rank}")
        exchange(world)

    with pytest.raises(UserError, match=f"^of rank {rank}$"):
        run_in_processes(ALONE, 3, work, length)


def kill_itself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_worker_that_is_killed_ends_all_in_one_error(allowed: Callable[[int], None]) -> None:
    allowed(2)

    def work(shard: int) -> None:
        if shard == 3:
            kill_itself()
        time.sleep(60 if shard > 3 else 0)

    with pytest.raises(UserError, match=KILLED):
        list(map_shards(work, range(9)))


@pytest.mark.parametrize("length", [0, 5], ids=["messages", "memory"])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_process_of_a_world_that_is_killed_ends_all_in_one_error(
    rank: int, length: int, allowed: Callable[[int], None]
) -> None:
    allowed(3)

    def work(world: World) -> None:
        exchange(world)
        if world.rank == rank:
            kill_itself()
        exchange(world)

    with pytest.raises(UserError, match=KILLED):
        run_in_processes(ALONE, 3, work, length)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ddpm.processes.workers.RawArray", OSError(28, "No space left on device")),
        ("ddpm.processes.exchange.FORK.Semaphore", FileNotFoundError(2, "No such file or directory")),
        ("ddpm.processes.exchange.mmap", OSError(12, "Cannot allocate memory")),
        ("ddpm.processes.workers.dist.init_process_group", RuntimeError("[enforce fail] Unable to find interface")),
    ],
)
def test_what_workers_lack_is_told_in_one_line_with_a_way_out(
    name: str, error: Exception, allowed: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> NoReturn:
        raise error

    allowed(2)
    monkeypatch.setattr(name, lacking)
    with pytest.raises(UserError, match=f"{error.args[-1][-20:]}.*DDPM_WORKERS=1"):
        run_in_processes(ALONE, 2, lambda world: world.gather(0), length=5)


@pytest.mark.parametrize("length", [0, 5], ids=["messages", "memory"])
def test_who_is_stopped_for_long_is_waited_for_without_spinning(
    length: int, allowed: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.distributed_c10d.default_pg_timeout", timedelta(seconds=1))
    allowed(2)

    def work(world: World) -> list[bool]:
        exchange(world)
        time.sleep(0 if world.rank else 3)
        began = time.process_time()
        exchange(world)
        return world.gather(time.process_time() - began < 1)

    assert run_in_processes(ALONE, 2, work, length) == [True, True]


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, allowed: Callable[[int], None]) -> None:
    allowed(2)

    def work(_: int) -> None:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    parent = get_context("fork").Process(target=lambda: list(map_shards(work, range(4))))
    parent.start()
    while len(begun := [*tmp_path.iterdir()]) < 2:
        time.sleep(0.05)
    found = [psutil.Process(int(each.name)) for each in begun]
    parent.kill()
    parent.join()
    assert psutil.wait_procs(found, SECONDS_TO_END)[1] == []
