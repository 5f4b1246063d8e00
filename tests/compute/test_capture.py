"""Functions that are recorded and replayed, by recordings that a CPU plays."""

import contextlib

import pytest
import torch
from ddpm.compute.capture import PLAIN_CALLS, Captured, captured
from torch import Tensor

from ddpm.pipeline.console import UserError
from tests.like_a_gpu import graphs_of_a_cpu

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_only_a_gpu_that_is_asked_to_records(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: Tensor) -> Tensor:
        return x + 1

    assert captured(function, CUDA) is function
    monkeypatch.setenv("DDPM_CAPTURE", "1")
    assert captured(function, CPU) is function
    with graphs_of_a_cpu(monkeypatch):
        found = captured(function, CUDA)
    assert isinstance(found, Captured)
    monkeypatch.setenv("DDPM_CAPTURE", "yes")
    with pytest.raises(UserError, match=r"^DDPM_CAPTURE=yes: give 1, or 0 for none$"):
        captured(function, CPU)


def test_it_gives_what_the_function_gives_and_runs_it_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, total = [], torch.zeros(2)

    def function(x: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        total.add_(x)
        return (x * y).relu() + total.view(2, 1)[:, 0]

    with graphs_of_a_cpu(monkeypatch) as graphs:
        replayed = Captured(function)
        wanted = torch.zeros(2)
        for step in range(8):
            x, y = torch.tensor([step, -step]) + 0.5, torch.tensor([1.0, step])
            wanted = wanted + x
            assert torch.equal(replayed(x, y), (x * y).relu() + wanted)
            assert torch.equal(total, wanted)
    assert len(calls) == PLAIN_CALLS + 1, "the last of them to record"
    assert [graph.replays for graph in graphs] == [8 - PLAIN_CALLS]


def test_a_recording_decides_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests rest on: a function that looks at values is replayed with the decision of its recording."""

    def function(x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1

    with graphs_of_a_cpu(monkeypatch):
        replayed = Captured(function)
        found = [float(replayed(torch.tensor([sign]))) for sign in (1.0, -1.0, 1.0, 1.0, -1.0)]
    assert found == [2.0, -2.0, 2.0, 2.0, 0.0]


class Unended(contextlib.AbstractContextManager[None]):
    """A recording that fails, and whose end then fails as well, as torch has it."""

    def __exit__(self, *error: object) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")


def test_a_recording_for_which_memory_is_too_small_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: Tensor) -> Tensor:
        if recording:
            raise recording[0]
        return x

    recording: list[Exception] = []
    with graphs_of_a_cpu(monkeypatch):
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: Unended())
        for error in (torch.OutOfMemoryError("CUDA out of memory"), ValueError("another")):
            recording.clear()
            replayed = Captured(function)
            for _ in range(PLAIN_CALLS):
                replayed(torch.ones(1))
            recording.append(error)
            expected = type(error) if isinstance(error, torch.OutOfMemoryError) else RuntimeError
            with pytest.raises(expected) as raised:
                replayed(torch.ones(1))
            assert (raised.value is error) == isinstance(error, torch.OutOfMemoryError)
