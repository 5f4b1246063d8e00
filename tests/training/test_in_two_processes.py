"""Training in several processes: two of them give what one gives."""

from typing import Any, NamedTuple

import pytest
import torch
from ddpm.parallel.group import ALONE, Group
from torch import Tensor

from ddpm.training.loop import EpochEnd, Logged, Training
from ddpm.training.recipe import TrainParams
from tests.parallel.two_processes import in_two_processes
from tests.training.trainings import CPU, SCHEDULE, network, split

RECIPE = {
    "images": None,
    "epochs": 2,
    "batch_size": 5,  # shares of two and three
    "lr": 0.01,
    "lr_decay": "cosine",
    "warmup_steps": 0,
    "loss": "v",
    "timestep_sampling": "stratified",
    "log_snr_center": 0.0,
    "classes": "all",
    "flip": False,
    "class_balance": 0,
    "label_dropout": 0,
    "early": 0,
    "start": "data/processed/train.safetensors",
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
    "mirrored": {"optimizer": "adam", "ema_decay": 0, "held_out": 0, "flip": True},
    "guided": {"optimizer": "adam", "ema_decay": 0.9, "held_out": 0, "label_dropout": 0.5, "early": 0.5},
}


class Trained(NamedTuple):
    """What one process has when it is done."""

    state: dict[str, Tensor]
    losses: list[float]
    ends: list[EpochEnd]
    seen: list[int]  # how many images of each batch came through the network


def trained(group: Group, held_out: int, batch_size: int = 5, **changes: object) -> Trained:
    params = TrainParams.model_validate({**RECIPE, "batch_size": batch_size, **changes})
    model = network(prediction="v")
    training = Training(model, SCHEDULE, split(4 * batch_size), split(held_out, seed=1), params, CPU, group)
    seen: list[int] = []
    training.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    events = list(training.run())
    losses = [event.loss for event in events if isinstance(event, Logged)]
    ends = [event for event in events if isinstance(event, EpochEnd)]
    return Trained({name: value.clone() for name, value in training.state().items()}, losses, ends, seen)


def every_case(group: Group) -> dict[str, Trained]:
    return {name: trained(group, **case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Trained]]:
    """What each of two processes has."""
    return in_two_processes(every_case, tmp_path_factory.mktemp("both"))


def test_a_batch_cannot_be_shared_among_more_processes_than_it_has_images() -> None:
    with pytest.raises(ValueError, match="a batch of 2 images cannot be shared among 3 processes"):
        trained(Group(0, 3), held_out=0, batch_size=2, optimizer="adam", ema_decay=0)


@pytest.mark.parametrize("case", CASES)
def test_both_processes_hold_the_same_bits(both: list[dict[str, Trained]], case: str) -> None:
    first, second = (found[case] for found in both)
    torch.testing.assert_close(first.state, second.state, rtol=0, atol=0)
    assert first.losses == second.losses
    torch.testing.assert_close(first.ends, second.ends, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_what_one_gives(both: list[dict[str, Trained]], case: str) -> None:
    alone, together = trained(ALONE, **CASES[case]), both[0][case]
    # Only the order in which float32 adds differs.
    torch.testing.assert_close(together.state, alone.state, rtol=1e-5, atol=1e-6)
    for name, weight in network(prediction="v").named_parameters():
        assert (alone.state[f"module.0.{name}"] - weight).abs().max() > 1e-3, "it has been trained"
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)
    assert len(together.ends) == 2
    for end, expected in zip(together.ends, alone.ends, strict=True):
        torch.testing.assert_close(end, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    told = [end.validation is not None for end in together.ends]
    assert told == [False, CASES[case]["held_out"] > 0]  # soon after the first there is no other
    assert ("kept" in together.state) == (CASES[case]["held_out"] > 0)
    assert any(name.startswith("early.") for name in together.state) == ("early" in CASES[case])


def test_each_process_computes_its_share_alone(both: list[dict[str, Trained]]) -> None:
    assert [found["adam"].seen for found in both] == [[2] * 8, [3] * 8]
    assert [found["muon"].seen for found in both] == [[2] * 8, [3] * 8]
