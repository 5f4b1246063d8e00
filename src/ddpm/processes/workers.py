"""Divide work among processes of this machine, so that no result depends on how many there are.

A shard is a share of the work that follows from data and params alone. One thread computes a shard, and results are
joined in the order of the shards. Threads would wait for each other in every operation, and a sum over threads depends
on their number. Workers are forked: they inherit what this process has.

Environment:
    DDPM_WORKERS  processes for each stage or command; by default as many as this program has cores.
"""

import contextlib
import gc
import os
import pickle
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from itertools import islice
from multiprocessing import active_children
from multiprocessing.sharedctypes import RawArray
from typing import Any, TypeVar, cast

from joblib import cpu_count
from torch import distributed as dist

from ddpm.processes.exchange import FORK, POLL, Exchange, OtherProcessEnded
from ddpm.processes.world import World
from exact_stages.console import UserError, shown

P = TypeVar("P")
R = TypeVar("R")
MOST_WORKERS = 256
PATIENCE = timedelta(days=365)  # with a process that is stopped; when one ends, the others notice at once


class _Process:
    """What this process knows of its workers, and what a worker inherits."""

    workers = 1  # processes that may work at once, with this one
    work: Callable[[Any], Any]
    advance: Callable[[int], object] = lambda _: None


def set_workers(workers: int) -> None:
    """Let `map_shards` and `run_in_processes` use this many processes, from now on."""
    _Process.workers = workers


def cores() -> int:
    """Count the cores of this program: physical ones, within its affinity and the quota of its container."""
    return int(cpu_count(only_physical_cores=True))


def add_progress(amount: int) -> None:
    """Tell the progress bar of `map_shards` that a part of a shard is done."""
    _Process.advance(amount)


def map_shards(
    work: Callable[[P], R], shards: Sequence[P], advance: Callable[[int], object] = lambda _: None
) -> Iterator[R]:
    """Yield the result of each shard, in the order of the shards.

    Args:
        work: has no effect but its result and `add_progress`.
        shards: small values, such as indices, since they are sent to workers.
        advance: called in this process with what the shards give to `add_progress`.

    Raises:
        UserError: a worker was killed; or `work` raises it.
    """
    size = min(_Process.workers, len(shards))
    if size < 2:
        before, _Process.advance = _Process.advance, advance
        try:
            yield from map(work, shards)
        finally:
            _Process.advance = before
        return
    advanced, left = 0, iter(shards)
    with _forked(size, work) as (start, done):
        waiting = deque(map(start, islice(left, 2 * size)))
        while waiting:
            while not waiting[0].done():
                with contextlib.suppress(TimeoutError):
                    waiting[0].exception(POLL)
                now = sum(done)
                advance(now - advanced)
                advanced = now
            yield pickle.loads(waiting.popleft().result())
            waiting.extend(map(start, islice(left, 1)))
        advance(sum(done) - advanced)


def run_in_processes(world: World, shards: int, work: Callable[[World], R], length: int = 0) -> R:
    """Do `work` in several processes that form a world, at most one for each shard; return what rank 0 returns.

    Processes of torchrun are such a world already.

    Args:
        length: of the results that the shards exchange often. They share memory for twice as many float32 numbers.

    Raises:
        UserError: a worker was killed, or there is no loopback interface; or `work` raises it.
    """
    size = min(_Process.workers, shards)
    if world.size > 1 or size < 2:
        return work(world)
    with _sharing():
        exchange = Exchange(size, shards, length) if length else None
    with tempfile.TemporaryDirectory() as folder:

        def joined(rank: int) -> R | None:
            store = f"file://{folder}/store"
            try:
                dist.init_process_group("gloo", init_method=store, timeout=PATIENCE, rank=rank, world_size=size)
            except RuntimeError as error:
                reason = f"processes cannot reach each other ({shown(str(error).rpartition('. ')[2])})"
                raise UserError(f"{reason}; turn on the loopback interface, or set DDPM_WORKERS=1") from None
            try:
                found = work(World(rank, size, exchange))
            finally:
                dist.destroy_process_group()  # or the others would wait
            return None if rank else found

        with _forked(size - 1, joined) as (start, _):
            started = [start(rank) for rank in range(1, size)]
            if exchange:
                exchange.gone = lambda: any(each.done() for each in started)
            try:
                return cast(R, joined(0))
            except OtherProcessEnded:
                for error in (each.exception() for each in as_completed(started)):
                    if error and not isinstance(error, OtherProcessEnded):
                        raise error from None
                raise


@contextlib.contextmanager
def _forked(size: int, work: Callable[[Any], Any]) -> Iterator[tuple[Callable[[Any], "Future[bytes]"], Iterable[int]]]:
    """Fork workers, until the context ends; an error ends them at once.

    Yield what starts a shard, and the progress of each worker.
    """
    _Process.work = work
    with _sharing():
        number, done = FORK.Value("i", 0), RawArray("q", size)
        pool = ProcessPoolExecutor(size, FORK, _begin, (os.getpid(), number, done))
    try:
        yield lambda shard: pool.submit(_do, shard), done
    except BaseException as error:
        for child in active_children():
            child.kill()
        if isinstance(error, BrokenProcessPool):
            raise UserError("a worker was killed; if memory was short, set DDPM_WORKERS to fewer") from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _sharing() -> Iterator[None]:
    """Tell in one line that there is no memory for workers to share, or no room in /dev/shm, where semaphores are."""
    try:
        yield
    except OSError as error:
        why = f"no memory that workers can share: {error.strerror}"
        raise UserError(f"{why}; make room, in /dev/shm too, or set DDPM_WORKERS=1") from None


def _begin(parent: int, number: Any, done: Any) -> None:
    """Begin as a worker: Ctrl-C and SIGTERM belong to the parent, and the worker ends with it."""
    gc.freeze()  # a worker must not end what it inherits, since the threads of gloo are not there
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _Process.workers = 1
    with number.get_lock():
        place = number.value
        number.value += 1

    def advance(amount: int) -> None:
        done[place] += amount

    _Process.advance = advance


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGKILL)


def _do(shard: Any) -> bytes:
    return pickle.dumps(_Process.work(shard))  # as bytes: multiprocessing would move tensors to shared memory
