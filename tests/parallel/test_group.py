"""A group of processes: the place of each, its share, and what they tell one another."""

import atexit
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ddpm.parallel.group import ALONE, Group, join, launched, place
from torch import distributed as dist

from ddpm.parallel import group as grouping
from ddpm.pipeline.console import UserError
from tests.parallel.two_processes import in_two_processes


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
    assert ALONE.each(str, [1, 2]) == ["1", "2"]


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
        "each": [group.each(lambda task: (task, group.rank), tasks) for tasks in ("ab", "c", "")],
        "failed": failed(group),
    }


def failed(group: Group) -> str:
    """How each process ends where the second cannot do its task."""

    def work(task: str) -> str:
        if task == "b":
            raise UserError("image 7: is not finite")
        return task

    grouping.SECONDS_TO_END = 0
    try:
        group.each(work, "ab")
    except (UserError, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return "not at all"


def test_two_processes_sum_ask_and_tell(tmp_path: Path) -> None:
    for rank, found in enumerate(in_two_processes(operations, tmp_path)):
        assert found == {
            "group": (rank, 2),
            "sum": [[[3, 3, 3], [3, 3, 3]], 10, [], [[0, 9], [3, 12], [6, 15]]],
            "any": [False, True, True, True],
            "from_first": {"rank": 0, "tensor": torch.tensor([0])},
            "each": [[("a", 0), ("b", 1)], [("c", 0)], []],
            "failed": ["UserError: image 7: is not finite", "SystemExit: 1"][rank],
        }


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends that a process asks for, of which there are none in this one."""
    asked: list[str] = []
    monkeypatch.setattr(dist, "init_process_group", asked.append)
    monkeypatch.setattr(atexit, "register", lambda _: None)
    monkeypatch.setattr(grouping, "end_with_parent", lambda: None)
    monkeypatch.setattr(Group, "gather", lambda _, value: [value] * 2)
    return asked


@pytest.mark.parametrize(("device", "backends"), [("cpu", "gloo"), ("cuda", "cpu:gloo,cuda:nccl"), ("mps", "gloo")])
def test_what_lives_on_the_cpu_goes_by_gloo(joined: list[str], device: str, backends: str) -> None:
    join(Group(1, 2), torch.device(device))
    assert joined == [backends]


def test_a_process_whose_launcher_has_ended_meanwhile_ends(joined: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PARENT", str(os.getppid()))
    join(Group(1, 2), torch.device("cpu"))
    monkeypatch.setenv("DDPM_PARENT", "1")
    with pytest.raises(SystemExit):
        join(Group(1, 2), torch.device("cpu"))
    assert len(joined) == 1


@pytest.mark.parametrize(
    ("machines", "local", "told"),
    [
        ("1", "0", 1),
        ("2", "0", "error: a process has ended, perhaps of another machine, which says why"),
        ("2", "1", 1),
    ],
)
def test_a_connection_that_breaks_ends_a_process(
    monkeypatch: pytest.MonkeyPatch, machines: str, local: str, told: object
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Connection closed by peer")

    for name in ("all_gather_object", "broadcast_object_list", "all_reduce"):
        monkeypatch.setattr(dist, name, broken)
    monkeypatch.setattr(grouping, "SECONDS_TO_END", 0)
    monkeypatch.setenv("GROUP_WORLD_SIZE", machines)
    monkeypatch.setenv("LOCAL_RANK", local)
    group = Group(1, 2)
    for operation in (lambda: group.gather(0), lambda: group.from_first(0), lambda: group.sum([torch.zeros(1)])):
        with pytest.raises(SystemExit) as caught:
            operation()
        assert caught.value.code == told


def test_what_else_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*_: object) -> None:
        raise RuntimeError("NCCL error: unhandled cuda error")

    monkeypatch.setattr(dist, "all_reduce", failed)
    with pytest.raises(RuntimeError, match="unhandled cuda error"):
        Group(1, 2).sum([torch.zeros(1)])


FACTS = {"train.lr": 0.001, "train.seed": 0, "src/ddpm/ingest/idx.py": "0123456789abcdef" * 4}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (FACTS | {"train.lr": 0.1}, "train.lr: 0.1 where process 0 has 0.001"),
        (FACTS | {"train.lr": 0.1, "train.seed": 1}, "train.lr: 0.1 where process 0 has 0.001, and 1 more differ"),
        (FACTS | {"new": 1}, "new: 1 where process 0 has None"),
        (FACTS | {"src/ddpm/ingest/idx.py": "fedcba9876543210" * 4}, "src/ddpm/ingest/idx.py: fedcba9876543210 where"),
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
