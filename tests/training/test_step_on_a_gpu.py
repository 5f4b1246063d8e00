"""What a GPU would suffer from in a gradient step, as far as a CPU can tell: many operations, and waiting."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.trainings import on_noise
from ddpm.compute import capture
from ddpm.pipeline.params import load_params
from ddpm.training import optim, step
from ddpm.training.loop import Logged
from stages.train import Params
from tests.like_a_gpu import HostCopies, Operations, graphs_of_a_cpu
from tests.training.trainings import CPU, finished, new_training


def test_a_mode_sees_what_waits() -> None:
    """What these tests rest on."""
    x = torch.arange(4.0)
    waits = [lambda: float(x[0]), lambda: x[0].item(), lambda: x[x > 1], lambda: x.nonzero(), lambda: bool(x[0])]
    copies = [lambda: x.cpu(), lambda: x.to("cpu"), lambda: torch.tensor([1]), lambda: x.tolist()]
    for mode, cases in ((Operations, waits), (HostCopies, copies)):
        for case in cases:
            with pytest.raises(AssertionError), mode():
                case()


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "lr_decay": "cosine", "log_snr_center": -1.0},
        {"block": "double_conv", "ema_decay": 0},
        {"flip": True, "label_dropout": 0.5},
    ],
    ids=str,
)
def test_no_step_waits_for_the_device(changes: dict[str, Any]) -> None:
    training = new_training(count=32, log_every=1, **changes)
    events = training.run()
    next(events)
    with Operations(), HostCopies():
        logged = [next(events) for _ in range(5)]
    assert [event.step for event in logged if isinstance(event, Logged)] == [2, 3, 4, 5, 6]
    assert all(event.loss > 0 for event in logged if isinstance(event, Logged))


def test_the_default_launches_few_kernels() -> None:
    """A GPU takes some 5 microseconds for each that the host launches: 450 of them are 2 ms."""
    training = on_noise(load_params(Params), 512, CPU)
    events = training.run()
    next(events)
    with Operations() as operations:
        next(events)
    assert operations.counts["baddbmm"] == 15, "Muon iterates all matrices of a side, of which there are three, at once"
    assert sum(operations.counts.values()) < 700


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "lr_decay": "cosine", "warmup_steps": 3, "log_snr_center": -1.0},
        {"block": "double_conv", "ema_decay": 0},
        {"flip": True, "label_dropout": 0.5, "early": 0.5, "held_out": 4},
    ],
    ids=str,
)
def test_replayed_steps_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    """Learning rate, average and the statistics of BatchNorm move on, though nothing of Python runs any more."""
    wanted = finished(count=16, epochs=4, **changes)
    for module in (step, optim):
        monkeypatch.setattr(module, "captured", lambda function, device: capture.Captured(function))
    with graphs_of_a_cpu(monkeypatch) as graphs:
        found = finished(count=16, epochs=4, **changes)
    assert [graph.replays for graph in graphs] == [16 - capture.PLAIN_CALLS] * 2, "gradients, and the update"
    assert found.state().keys() == wanted.state().keys()
    for name, value in wanted.state().items():
        assert torch.equal(found.state()[name], value), name


def but_for(number: int, function: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """The function, but for that call (the first is 1), which gives None."""
    numbers = itertools.count(1)
    return lambda *share: None if next(numbers) == number else function(*share)


@pytest.mark.parametrize("call", range(1, 6))
def test_a_batch_that_stops_fitting_is_recorded_anew_with_its_update(
    monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """In a plain call, while it is recorded, or with another part of the program in the memory later on."""
    found = []
    for replayed in (False, True):
        with monkeypatch.context() as patched:
            if replayed:
                for module in (step, optim):
                    patched.setattr(module, "captured", lambda function, device: capture.Captured(function))
            with graphs_of_a_cpu(monkeypatch) as graphs:
                training = new_training(count=16, epochs=4)
                patched.setattr(training.gradient_step, "_fitting", but_for(call, training.gradient_step._fitting))
                for _ in training.run():
                    pass
        assert training.gradient_step.parts == 2
        assert bool(graphs) == replayed
        found.append(training.state())
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name
