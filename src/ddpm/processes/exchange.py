"""Exchange numbers between forked processes, through memory that they share."""

from collections.abc import Callable
from mmap import mmap
from multiprocessing import get_context

import torch
from torch import Tensor

FORK = get_context("fork")
POLL = 0.2  # seconds from one look at the other processes to the next
LINE = 16  # numbers in 64 bytes, where every row begins


class OtherProcessEnded(SystemExit):
    """Another process of the world has ended; it reports the error."""


class Exchange:
    """Two halves of a memory, used in turn, and a semaphore for each process; make this before the fork.

    A process writes rows into one half, and arrives. When all have arrived, it reads the rows of all, until it arrives
    with the other half. Only then may anybody write into the first one again.
    """

    def __init__(self, size: int, rows: int, length: int) -> None:
        """Share memory for twice as many float32 rows of this length.

        Raises:
            OSError: there is no memory, or no room in /dev/shm, where semaphores are.
        """
        self.size = size
        self.arrived = [FORK.Semaphore(0) for _ in range(size)]
        self.numbers = rows * _padded(length)
        self.halves = [torch.frombuffer(mmap(-1, 4 * self.numbers), dtype=torch.float32) for _ in range(2)]
        self.gone: Callable[[], bool] = lambda: False  # whether another process has ended

    def rows(self, count: int, length: int) -> Tensor | None:
        """Return the half to use now, as (processes, count, length); None if that is more than it holds."""
        numbers = self.size * count * _padded(length)
        if numbers > self.numbers:
            return None
        return self.halves[0][:numbers].view(self.size, count, -1)[:, :, :length]

    def arrive(self, rank: int) -> None:
        """Wait until all processes have written their rows, without spinning; then take the other half.

        Raises:
            OtherProcessEnded: another process has ended before.
        """
        for other, semaphore in enumerate(self.arrived):
            if other != rank:
                semaphore.release()
        for _ in range(self.size - 1):
            gone = self.gone()
            while not self.arrived[rank].acquire(timeout=POLL):
                if gone:
                    raise OtherProcessEnded(1)
                gone = self.gone()
        self.halves.reverse()


def _padded(length: int) -> int:
    return -(-length // LINE) * LINE
