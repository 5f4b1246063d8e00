"""The processes of one stage: the place of each, its share, and what they tell one another."""

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch

from ddpm.processes.workers import run_in_processes
from ddpm.processes.world import ALONE, World, join, role
from exact_stages.console import UserError

RESULTS = torch.tensor([1e8, 1.0, -1e8, 1.0, 3e-3]).view(5, 1) * torch.tensor([1.0, -3.0])  # their order counts


def totals(world: World) -> list[list[float]]:
    """Sums of the first results, of which each process has its own, and anything behind them."""
    found = []
    for shards in range(1, 6):
        results = torch.full((-(-shards // world.size), 2), torch.nan)
        own = world.own_shards(shards)
        results[: len(own)] = RESULTS[own.start : own.stop]
        found.append(world.total(results, shards).tolist())
    return found


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_total_is_summed_in_the_order_of_the_shards(size: int, allowed: Callable[[int], None]) -> None:
    allowed(size)
    alone = totals(ALONE)
    assert alone == [row.tolist() for row in accumulate(RESULTS)]
    assert alone[3] != [1.0 + 1.0, -6.0], "another order gives another sum"
    assert run_in_processes(ALONE, size, lambda world: world.gather(totals(world))) == [alone] * size


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
