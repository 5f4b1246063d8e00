"""Checkpoints: a run continues from its own last one, and from no other."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.processes import checkpoints
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.world import ALONE, World
from exact_stages.console import UserError


class Counter:
    """Work on twos of images; every second step has a loss."""

    def __init__(self, total_steps: int = 6) -> None:
        self.batch_size = 2
        self.shards = 1
        self.length = 0
        self.total_steps = total_steps
        self.step = 0

    def run(self, world: World) -> Iterator[float | None]:
        assert world == ALONE
        while self.step < self.total_steps:
            self.step += 1
            yield self.step / 8 if self.step % 2 == 0 else None

    def state_dict(self) -> dict[str, Any]:
        return {"step": torch.tensor(self.step), "rows": [[1, 0.5, "text"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])
        assert state["rows"] == [[1, 0.5, "text"]]


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "0")
    monkeypatch.setattr(checkpoints, "WORK_PER_SAVE", 0)


def run_to(step: int) -> int:
    """Work until `step`, with a checkpoint after each, and return where the work began."""
    counter = Counter(step)
    with Checkpoints("train", "cpu", ALONE, counter=counter) as checkpoint:
        began = counter.step
        checkpoint.run("counting", counter)
    return began


def test_a_run_continues_from_its_last_checkpoint() -> None:
    assert [run_to(3), run_to(5), run_to(5)] == [0, 3, 5]
    assert os.listdir(".resume") == ["train-cpu.state"]


def test_a_finished_run_stays_until_dvc_has_recorded_its_outputs() -> None:
    Path("model").write_bytes(b"weights")
    counter = Counter(5)
    with Checkpoints("train", "cpu", ALONE, counter=counter) as checkpoint:
        checkpoint.run("counting", counter)
        checkpoint.save([Path("model")])
    Path("dvc.lock").write_text(f"    - md5: {hashlib.md5(b'another').hexdigest()}")
    assert run_to(0) == 5
    with Checkpoints("train", "cpu", ALONE, counter=counter) as checkpoint:
        checkpoint.save([Path("model")])
    Path("dvc.lock").write_text(f"    - md5: {hashlib.md5(b'weights').hexdigest()}")
    assert run_to(0) == 0


def test_rank_0_alone_saves() -> None:
    for rank, saved in ((1, False), (0, True)):
        Checkpoints("train", "cpu", World(rank, 2), counter=Counter()).save()
        assert Path(".resume").exists() == saved


def test_a_checkpoint_is_saved_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "1000")
    run_to(3)
    assert not Path(".resume").exists()
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "soon")
    with pytest.raises(UserError, match="DDPM_SAVE_SECONDS"):
        run_to(3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_where_it_may_be_saved(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "1000")
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    counter = Counter()
    with Checkpoints("train", "cpu", ALONE, counter=counter) as checkpoint:
        counter.step = 7
        checkpoint.save_if_due()
        os.kill(os.getpid(), number)
        # A second Ctrl-C ends it at once; SIGTERM comes twice when a whole process group is told to end.
        assert (signal.getsignal(number) is signal.SIG_DFL) == (number == signal.SIGINT)
        with pytest.raises(UserError, match=r"^train: interrupted"):
            checkpoint.save_if_due()
    os.kill(os.getpid(), signal.SIGTERM)  # DVC has ended: the process must live until its message is printed
    for each, handler in before.items():
        signal.signal(each, handler)
    assert run_to(7) == 7
    assert {each: signal.getsignal(each) for each in before} == before


def test_two_works_of_a_run_take_several_processes_one_after_the_other(allowed: Callable[[int], None]) -> None:
    allowed(2)
    sizes: list[int] = []
    with Checkpoints("train", "cpu", ALONE, counter=Counter()) as checkpoint:
        for _ in range(2):
            checkpoint.run_in_processes(2, lambda world: sizes.extend(world.gather(world.size)))
        assert checkpoint.world == ALONE
    assert sizes == [2, 2] * 2
