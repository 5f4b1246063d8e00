"""The processes of one stage: the place of each, its share, and what they tell one another."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ddpm.diffusion.shards import sums, total
from ddpm.processes.workers import run_in_processes
from ddpm.processes.world import ALONE, World, join, role
from exact_stages.console import UserError
from tests.small import CPU

RESULTS = torch.tensor([1e8, 1.0, -1e8, 1.0, 3e-3]).view(5, 1) * torch.tensor([1.0, -3.0])  # their order counts


def exchanged(world: World) -> list[list[Any]]:
    """For 1 to 5 shards, their sum and what each has, while halves of a shared memory are used in turn."""
    found: list[list[Any]] = []
    for shards in [1, 2, 3, 4, 5] * 2:
        own = world.own_shards(shards)
        added = sums(world, shards, 2, CPU.device)
        for each, shard in zip(added, own, strict=False):
            each += RESULTS[shard]
        found.append([total(world, added, shards).tolist()])
        rows = world.results(shards, 2, CPU.device)
        for row, shard in zip(rows, own, strict=False):
            row.copy_(RESULTS[shard])
        found[-1] += [row.tolist() for row in world.gathered(rows, shards)]
    return found


@pytest.mark.parametrize(("size", "length"), [(2, 0), (2, 2), (3, 2), (4, 2), (4, 40)])
def test_sums_are_a_fixed_tree_and_results_come_in_the_order_of_the_shards(
    size: int, length: int, allowed: Callable[[int], None]
) -> None:
    """By messages, by a memory that holds some of the exchanges, and by one that holds all."""
    allowed(size)
    (s0, s1, s2, s3, s4), alone = RESULTS, exchanged(ALONE)
    expected = [s0, s0 + s1, (s0 + s1) + s2, (s0 + s1) + (s2 + s3), ((s0 + s1) + (s2 + s3)) + s4]
    assert alone == [[each.tolist(), *RESULTS[: place + 1].tolist()] for place, each in enumerate(expected)] * 2
    assert alone[3][0] != (s0 + s1 + s2 + s3).tolist(), "another order gives another sum"
    assert run_in_processes(ALONE, size, lambda world: world.gather(exchanged(world)), length) == [alone] * size


def test_two_processes_tell(allowed: Callable[[int], None]) -> None:
    def work(world: World) -> None:
        assert world.gather(f"of {world.rank}") == ["of 0", "of 1"]
        assert world.broadcast(lambda: torch.tensor([world.rank])) == 0
        world.check_equal("equal")
        world.check_equal("" if world.rank else "of the machine")
        with pytest.raises(UserError):
            world.check_equal(f"another on {world.rank}")

    allowed(2)
    run_in_processes(ALONE, 2, work)


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
    assert "TORCHELASTIC_RUN_ID" in environment or join(torch.device("cpu")) == ALONE
