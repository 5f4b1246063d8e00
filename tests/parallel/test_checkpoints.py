"""Checkpoints: a run continues from its own last one, and from no other."""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.parallel import checkpoints
from ddpm.parallel.checkpoints import KEPT, Checkpoints
from ddpm.parallel.world import ALONE
from exact_stages.console import UserError


class Counter:
    """What a stage works on: it has come to `step`."""

    def __init__(self) -> None:
        self.step = 0

    @property
    def weights(self) -> Tensor:
        return torch.full((50,), self.step + 0.1)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "weights": self.weights, "rows": [[1, 0.5, "text"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        assert torch.equal(state["weights"], self.weights)
        assert state["rows"] == [[1, 0.5, "text"]]


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "0")
    monkeypatch.setattr(checkpoints, "WORK_PER_SAVE", 0)


def run_to(step: int, environment: str = "cpu", stage: str = "train") -> int:
    """Work until `step`, with a checkpoint after each, and return where the work began."""
    counter = Counter()
    with Checkpoints(stage, environment, ALONE, counter=counter) as at_work:
        began = counter.step
        while counter.step < step:
            counter.step += 1
            at_work.tick()
    return began


def saved(stage: str = "train") -> Path:
    (path,) = Path(".resume").glob(f"{stage}-*.pt")
    return path


def test_a_run_continues_from_its_last_checkpoint() -> None:
    assert [run_to(3), run_to(5), run_to(5)] == [0, 3, 5]
    assert os.listdir(".resume") == [saved().name]


def test_another_environment_or_stage_begins_from_nothing() -> None:
    run_to(3)
    assert run_to(1, environment="cuda") == 0
    assert run_to(1, stage="sample") == 0
    assert run_to(3) == 3


def test_a_damaged_checkpoint_is_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    run_to(3)
    whole = saved().read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        for data in (bytes(damaged), whole[:position]):
            saved().write_bytes(data)
            assert run_to(0) in (0, 3), position  # nothing else: not every byte of a zip file means something
    saved().write_bytes(whole[:-1])
    capsys.readouterr()
    assert run_to(4) == 0
    assert "damaged; train" in capsys.readouterr().err
    assert run_to(5) == 4


def test_a_finished_run_stays_until_dvc_has_recorded_its_outputs() -> None:
    Path("model").write_bytes(b"weights")
    with Checkpoints("train", "cpu", ALONE, counter=Counter()) as at_work:
        at_work.parts["counter"].step = 5  # type: ignore[attr-defined]
        at_work.finish([Path("model")])
    for recorded, began in ((b"another", 5), (b"weights", 0)):
        Path("dvc.lock").write_text(f"    - md5: {hashlib.md5(recorded).hexdigest()}")
        assert run_to(0) == began
    assert not list(Path(".resume").iterdir())


def test_checkpoints_live_in_the_repository_though_dvc_works_in_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "repository")
    run_to(1)
    assert len(list(Path("repository/.resume").iterdir())) == 1


def test_the_last_few_of_a_stage_are_kept() -> None:
    run_to(1, stage="sample")
    for number in range(KEPT + 2):
        run_to(1, environment=str(number))
        for path in Path(".resume").glob("train-*"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    assert len(list(Path(".resume").glob("train-*"))) == KEPT
    assert run_to(1, environment="0") == 0
    assert run_to(1, environment=str(KEPT + 1)) == 1
    assert run_to(1, stage="sample") == 1


def test_a_checkpoint_is_saved_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "1000")
    run_to(3)
    assert not Path(".resume").exists()
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "soon")
    with pytest.raises(UserError, match="DDPM_SAVE_SECONDS"):
        run_to(3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_at_the_next_tick(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_SAVE_SECONDS", "1000")
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    counter = Counter()
    with Checkpoints("train", "cpu", ALONE, counter=counter) as at_work:
        counter.step = 7
        at_work.tick()
        os.kill(os.getpid(), number)
        # A second Ctrl-C ends it at once; SIGTERM comes twice when a whole process group is told to end.
        assert (signal.getsignal(number) is signal.SIG_DFL) == (number == signal.SIGINT)
        with pytest.raises(UserError, match=r"^train: interrupted"):
            at_work.tick()
    os.kill(os.getpid(), signal.SIGTERM)  # DVC has ended: the process must live until its message is printed
    for each, handler in before.items():
        signal.signal(each, handler)
    assert run_to(7) == 7
    assert {each: signal.getsignal(each) for each in before} == before
