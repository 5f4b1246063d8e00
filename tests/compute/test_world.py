"""The processes of one stage: the place of each, its share, and what they tell one another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from ddpm.parallel.world import ALONE, World, join, role
from exact_stages.console import UserError
from tests.ranks import in_two_ranks


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shards_are_all_things_once_and_as_even_as_can_be(size: int) -> None:
    for count in range(20):
        shards = [range(count)[World(rank, size).shard(count)] for rank in range(size)]
        assert [thing for shard in shards for thing in shard] == list(range(count))
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_process_alone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")  # of a scheduler, which may set it, too
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert join(torch.device("cpu")) == ALONE == (0, 1)
    assert not dist.is_initialized()
    tensors = [torch.arange(3.0), torch.tensor(2)]
    ALONE.sum(tensors)
    assert [tensor.tolist() for tensor in tensors] == [[0, 1, 2], 2]
    value = object()
    assert ALONE.broadcast(lambda: value) is value
    ALONE.agree("anything")


def operations(world: World) -> dict[str, Any]:
    """Return what each operation gives to this process."""
    tensors = [torch.full((2, 3), world.rank + 1.0), torch.tensor(10.0 * world.rank), torch.empty(0)]
    turned = torch.arange(6.0).view(2, 3).T * (world.rank + 1)
    world.sum([*tensors, turned])
    world.agree("equal")
    world.agree("" if world.rank else "of the machine")
    with pytest.raises(UserError):
        world.agree(f"another on {world.rank}")
    return {
        "world": tuple(world),
        "sum": [tensor.tolist() for tensor in (*tensors, turned)],
        "gather": world.gather(f"of {world.rank}"),
        "broadcast": world.broadcast(lambda: torch.tensor([world.rank])),
    }


def test_two_processes_sum_and_tell(tmp_path: Path) -> None:
    for rank, found in enumerate(in_two_ranks(operations, tmp_path)):
        assert found == {
            "world": (rank, 2),
            "sum": [[[3, 3, 3], [3, 3, 3]], 10, [], [[0, 9], [3, 12], [6, 15]]],
            "gather": ["of 0", "of 1"],
            "broadcast": torch.tensor([0]),
        }


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "2"}, (True, True)),  # of a scheduler
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0"}, (True, True)),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "1", "LOCAL_RANK": "1"}, (False, False)),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "2", "LOCAL_RANK": "0"}, (False, True)),  # of the second machine
    ],
)
def test_rank_0_writes_and_one_process_of_each_machine_tells_errors(
    environment: dict[str, str], expected: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert role() == expected


@pytest.mark.parametrize(
    ("said", "ends"), [("Connection closed by peer", SystemExit), ("NCCL error: unhandled cuda error", RuntimeError)]
)
def test_a_process_ends_in_silence_when_another_has_ended(
    monkeypatch: pytest.MonkeyPatch, said: str, ends: type[BaseException]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(said)

    for name in ("all_gather_object", "all_reduce"):
        monkeypatch.setattr(dist, name, broken)
    for operation in (lambda: World(1, 2).gather(0), lambda: World(1, 2).sum([torch.zeros(1)])):
        with pytest.raises(ends):
            operation()
