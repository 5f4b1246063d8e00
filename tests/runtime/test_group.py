"""Training in several processes: the share of each, and that two of them give what one gives."""

import multiprocessing
import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from test_training import CPU, SCHEDULE, network, split
from torch import Tensor
from torch import distributed as dist

from ddpm.runtime.group import ALONE, Group, join, launched, place
from ddpm.training.loop import EpochEnd, Logged, Training, TrainParams

RECIPE = {
    "epochs": 2,
    "batch_size": 5,  # shares of two and three
    "lr": 0.01,
    "lr_decay": "cosine",
    "warmup_steps": 0,
    "loss": "v",
    "timestep_sampling": "stratified",
    "log_snr_center": 0.0,
    "classes": "all",
    "validation": 0,
    "log_every": 2,
    "seed": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": "muon", "ema_decay": 0.9, "held_out": 0},
    "muon, validated": {"optimizer": "muon", "ema_decay": 0.9, "held_out": 1003},  # three chunks of 500
    "adam": {"optimizer": "adam", "ema_decay": 0, "held_out": 0},
    "adam, validated": {"optimizer": "adam", "ema_decay": 0.9, "held_out": 3},  # a chunk for the first process alone
    "one image each": {"optimizer": "muon", "ema_decay": 0.9, "held_out": 0, "batch_size": 2},
}


class Trained(NamedTuple):
    """What one process has when it is done."""

    state: dict[str, Tensor]
    losses: list[float]
    ends: list[EpochEnd]
    seen: list[int]  # how many images of each batch came through the network


def trained(group: Group, optimizer: str, ema_decay: float, held_out: int, batch_size: int = 5) -> Trained:
    recipe = {**RECIPE, "optimizer": optimizer, "ema_decay": ema_decay, "batch_size": batch_size}
    params = TrainParams.model_validate(recipe)
    model = network(prediction="v")
    training = Training(model, SCHEDULE, split(4 * batch_size), split(held_out, seed=1), params, CPU, group)
    seen: list[int] = []
    training.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    events = list(training.run())
    losses = [event.loss for event in events if isinstance(event, Logged)]
    ends = [event for event in events if isinstance(event, EpochEnd)]
    return Trained({name: value.clone() for name, value in training.state().items()}, losses, ends, seen)


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


def work(rank: int, port: int, folder: Path) -> None:
    """One of two processes, as torch's launcher would have started it."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment["TORCHELASTIC_RUN_ID"] = "test"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, str(value))
        group = place()
        join(group, torch.device("cpu"))
    found = {"operations": operations(group)} | {name: trained(group, **case) for name, case in CASES.items()}
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("both")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, port, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_a_launched_process_finds_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert launched()
    assert place() == Group(rank=2, size=5)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 100])
def test_shares_are_all_things_once_and_as_even_as_can_be(size: int) -> None:
    for count in range(130):
        shares = [range(count)[Group(rank, size).share(count)] for rank in range(size)]
        assert [thing for share in shares for thing in share] == list(range(count))
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 1


def test_a_batch_cannot_be_shared_among_more_processes_than_it_has_images() -> None:
    with pytest.raises(ValueError, match="a batch of 2 images cannot be shared among 3 processes"):
        trained(Group(0, 3), "adam", 0, held_out=0, batch_size=2)


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


def test_two_processes_sum_ask_and_tell(both: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(both):
        assert found["operations"] == {
            "group": (rank, 2),
            "sum": [[[3, 3, 3], [3, 3, 3]], 10, [], [[0, 9], [3, 12], [6, 15]]],
            "any": [False, True, True, True],
            "from_first": {"rank": 0, "tensor": torch.tensor([0])},
        }


@pytest.mark.parametrize("case", CASES)
def test_both_processes_hold_the_same_bits(both: list[dict[str, Any]], case: str) -> None:
    first, second = (found[case] for found in both)
    torch.testing.assert_close(first.state, second.state, rtol=0, atol=0)
    assert first.losses == second.losses
    torch.testing.assert_close(first.ends, second.ends, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_what_one_gives(both: list[dict[str, Any]], case: str) -> None:
    alone, together = trained(ALONE, **CASES[case]), both[0][case]
    # Only the order in which float32 adds differs.
    torch.testing.assert_close(together.state, alone.state, rtol=1e-5, atol=1e-6)
    for name, weight in network(prediction="v").named_parameters():
        assert (alone.state[f"module.0.{name}"] - weight).abs().max() > 1e-3, "it has been trained"
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)
    assert len(together.ends) == 2
    for end, expected in zip(together.ends, alone.ends, strict=True):
        torch.testing.assert_close(end, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert (end.validation is None) == (CASES[case]["held_out"] == 0)


def test_each_process_computes_its_share_alone(both: list[dict[str, Any]]) -> None:
    assert [found["adam"].seen for found in both] == [[2] * 8, [3] * 8]
    assert [found["muon"].seen for found in both] == [[2] * 8, [3] * 8]
