"""A group of processes: the place of each, its share, and what they tell one another."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from ddpm.runtime.console import UserError
from ddpm.runtime.group import ALONE, Group, join, launched, place
from tests.runtime.two_processes import in_two_processes


def test_a_launched_process_finds_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert not launched(), "a launcher names where they meet"
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert launched()
    assert place() == Group(rank=2, size=5)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 100])
def test_shares_are_all_things_once_and_as_even_as_can_be(size: int) -> None:
    for count in range(130):
        shares = [range(count)[Group(rank, size).share(count)] for rank in range(size)]
        assert [thing for share in shares for thing in share] == list(range(count))
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 1


def test_one_process_alone_is_a_group_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")  # of another launcher, which schedulers may set
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not launched()
    assert place() is ALONE
    join(ALONE, torch.device("cpu"))
    assert not dist.is_initialized()
    assert ALONE == (0, 1)
    assert ALONE.share(7) == slice(0, 7)
    tensors = [torch.arange(3.0), torch.tensor(2)]  # not even of one dtype
    ALONE.sum(tensors)
    assert [tensor.tolist() for tensor in tensors] == [[0, 1, 2], 2]
    assert ALONE.any(True) is True
    assert ALONE.any(False) is False
    value = object()
    assert ALONE.from_first(value) is value


def operations(group: Group) -> dict[str, Any]:
    """What each operation of the group gives to this process."""
    tensors = [torch.full((2, 3), group.rank + 1.0), torch.tensor(10.0 * group.rank), torch.empty(0)]
    turned = torch.arange(6.0).view(2, 3).T * (group.rank + 1)
    before = [*tensors, turned]
    group.sum(before)
    return {
        "group": tuple(group),
        "sum": [tensor.tolist() for tensor in before],
        "any": [group.any(False), group.any(group.rank == 0), group.any(group.rank == 1), group.any(True)],
        "from_first": group.from_first({"rank": group.rank, "tensor": torch.tensor([group.rank])}),
    }


def test_two_processes_sum_ask_and_tell(tmp_path: Path) -> None:
    for rank, found in enumerate(in_two_processes(operations, tmp_path)):
        assert found == {
            "group": (rank, 2),
            "sum": [[[3, 3, 3], [3, 3, 3]], 10, [], [[0, 9], [3, 12], [6, 15]]],
            "any": [False, True, True, True],
            "from_first": {"rank": 0, "tensor": torch.tensor([0])},
        }


FACTS = {"train.lr": 0.001, "train.seed": 0, "src/ddpm/data/idx.py": "0123456789abcdef" * 4}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (FACTS | {"train.lr": 0.1}, "train.lr: 0.1 where process 0 has 0.001"),
        (FACTS | {"train.lr": 0.1, "train.seed": 1}, "train.lr: 0.1 where process 0 has 0.001, and 1 more differ"),
        (FACTS | {"new": 1}, "new: 1 where process 0 has None"),
        (FACTS | {"src/ddpm/data/idx.py": "fedcba9876543210" * 4}, "src/ddpm/data/idx.py: fedcba9876543210 where"),
    ],
)
def test_processes_with_other_facts_are_told_by_name(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, object], told: str
) -> None:
    monkeypatch.setattr(Group, "gather", lambda _, facts: [FACTS, FACTS, other, FACTS])
    for rank in (0, 2):
        with pytest.raises(UserError, match=f"^process 2 has {re.escape(told)}"):
            Group(rank, 4).agree(FACTS)
    for rank in (1, 3):
        with pytest.raises(SystemExit) as caught:
            Group(rank, 4).agree(FACTS)
        assert caught.value.code == 1


def test_processes_with_equal_facts_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "gather", lambda _, facts: [FACTS, dict(FACTS)])
    Group(1, 2).agree(FACTS)
    monkeypatch.undo()
    Group().agree(FACTS)
