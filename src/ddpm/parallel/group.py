"""The processes that work together: in training on shares of every batch, in drawing on batches in turn.

torch's launcher starts them and tells each its place in environment variables; one process alone is a group too.
"""

import atexit
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ddpm.pipeline.console import UserError
from ddpm.pipeline.process import end_with_parent

T = TypeVar("T")
Task = TypeVar("Task")
BROKEN = ("closed by peer", "reset by peer", "Broken pipe")  # a connection, as torch says it
SECONDS_TO_END = 1.0  # after which a launcher has ended the processes that outlive one of theirs


class Group(NamedTuple):
    """The place of this process, `rank`, among `size`."""

    rank: int = 0
    size: int = 1

    def share(self, count: int) -> slice:
        """Which of `count` things that all processes know are this one's."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, of one dtype, by its sum over the processes, the same in all of them."""
        if self.size > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            with _ending_together():
                dist.all_reduce(flat)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """What `value` is in every process, by rank; it goes by the CPUs, and no GPU waits."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _ending_together():
            dist.all_gather_object(values, value)
        return values

    def each(self, work: Callable[[Task], T], tasks: Sequence[Task]) -> list[T]:
        """What `work` gives for each of the tasks, at most `size`: every process does one, and all get all results.

        Raises:
            UserError: `work` has raised it, in whichever process; the first process says so.
            SystemExit: likewise, in the others, once the first has ended.
        """
        if self.size == 1:
            return [work(task) for task in tasks]
        result, error = None, None
        try:
            result = work(tasks[self.rank]) if self.rank < len(tasks) else None
        except UserError as caught:
            error = caught
        found = self.gather((result, error))
        if errors := [error for _, error in found if error]:
            if self.rank == 0:
                raise errors[0]
            self.from_first(None)  # it never comes: so none ends before the first has saved its work
            raise SystemExit(1)
        return [result for result, _ in found[: len(tasks)]]  # type: ignore[misc]

    def any(self, flag: bool) -> bool:
        """Whether it is true in some process."""
        return any(self.gather(flag))

    def agree(self, facts: dict[str, Any]) -> None:
        """See to it that all processes have the same facts: params, data and code, each on its own machine.

        Raises:
            UserError: they differ; the first process and the one that differs say in what.
            SystemExit: they differ, in another process.
        """
        first, *others = self.gather(facts)
        for rank, other in enumerate(others, start=1):
            if wrong := [name for name in sorted(first.keys() | other.keys()) if first.get(name) != other.get(name)]:
                if self.rank not in (0, rank):
                    raise SystemExit(1)
                values = f"{_short(other.get(wrong[0]))} where process 0 has {_short(first.get(wrong[0]))}"
                more = f", and {len(wrong) - 1} more differ" if wrong[1:] else ""
                raise UserError(f"process {rank} has {wrong[0]}: {values}{more}; start all from the same files")

    def from_first(self, value: T) -> T:
        """What `value` is in the process of rank 0; the others' is ignored."""
        if self.size == 1:
            return value
        values = [value]
        with _ending_together():
            dist.broadcast_object_list(values)
        return values[0]


ALONE = Group()


def _short(value: object) -> str:
    """As a message shows it; of hashes the beginning says enough."""
    return str(value)[:16]


def launched() -> bool:
    """Whether torch's launcher has started this process."""
    return dist.is_torchelastic_launched() and {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def place() -> Group:
    """The group that the launcher has put this process into; it works together only after `join`."""
    return Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched() else ALONE


def join(group: Group, device: torch.device) -> None:
    """Wait until all processes are there; from then on the end of the launcher comes as SIGTERM, where the system can.

    Args:
        device: of the tensors that they are to sum; what else they tell one another goes by the CPUs.
    """
    if group.size > 1:
        end_with_parent()
        if os.environ.get("DDPM_PARENT", parent := str(os.getppid())) != parent:
            raise SystemExit(1)  # it has ended already
        with _ending_together():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)  # else threads of its own may abort a process that ends
        group.gather(None)  # none goes on, and ends, while another is still to be connected with it


@contextlib.contextmanager
def _ending_together() -> Iterator[None]:
    """Let this process end when another has ended in the middle of its work: that one, or its launcher, says why.

    Raises:
        SystemExit: it has, a while ago: the launcher is to name the one that was the first to end.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in BROKEN):
            raise
        time.sleep(SECONDS_TO_END)
        elsewhere = int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1 and os.environ["LOCAL_RANK"] == "0"
        raise SystemExit(
            "error: a process has ended, perhaps of another machine, which says why" if elsewhere else 1
        ) from None
