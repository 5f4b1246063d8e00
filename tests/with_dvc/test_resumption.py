"""Killing the pipeline with real dvc: whatever is cut off goes on, and ends with the bytes of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import SECONDS, Built, Clone, await_state, build_once, copy_clone, left, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
LATE = {"train.seed": 1, "train.epochs": 3}  # a run that the cache does not have


@pytest.fixture(scope="module")
def undisturbed(pipeline: Built, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Clone:
    """`pipeline` with other params, run without a kill."""

    def build(folder: Path) -> tuple[Clone, str]:
        clone = copy_clone(pipeline.clone, folder)
        clone.edit_params(LATE)
        return clone, clone.dvc("repro", "train")

    return build_once(tmp_path_factory, worker_id, "undisturbed", build).clone


def start(clone: Clone, *command: str) -> "subprocess.Popen[str]":
    """The command, once it has saved a state."""
    process = clone.start(*command, DDPM_SAVE_SECONDS="0")
    await_state(clone, process)
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("target", ["group", "dvc"])
def test_training_that_is_cut_off_goes_on(
    clone: Clone, undisturbed: Clone, number: signal.Signals, target: str
) -> None:
    if target == "dvc" and number == signal.SIGINT:
        pytest.skip("dvc ignores it while a stage runs; Ctrl-C reaches the whole group")
    if target == "dvc" and sys.platform != "linux":
        pytest.skip("a stage hears of dvc's death on Linux alone")
    clone.edit_params(LATE)
    process = start(clone, "dvc", "repro", "train")
    (os.killpg if target == "group" else os.kill)(process.pid, number)
    told = time.monotonic()
    printed, _ = process.communicate(timeout=60)  # until the stage, which has the pipe as well, has ended
    assert process.returncode != 0
    if number != signal.SIGKILL or target == "dvc":
        assert time.monotonic() - told < 20  # two seconds on an idle machine
        assert "error: interrupted after step" in printed, printed
    printed = clone.dvc("repro", "train")
    assert "resuming after step" in printed
    assert left(clone) == left(undisturbed)
    assert not ran(clone.dvc("repro", "train"))


def test_what_ended_before_dvc_recorded_it_costs_no_second_training(clone: Clone, undisturbed: Clone) -> None:
    clone.edit_params(LATE)
    clone.run("python", "-m", "stages.train")  # as when dvc is killed right behind it
    printed = clone.dvc("repro", "train")
    assert "resuming after step 36 of 36" in printed, printed
    assert left(clone) == left(undisturbed)
    # Now that the lock has it, forcing trains from zero.
    assert "resuming" not in clone.dvc("repro", "--force", "--single-item", "train")
    assert left(clone) == left(undisturbed)


def test_an_experiment_in_a_temporary_copy_goes_on(clone: Clone) -> None:
    command = ("dvc", "exp", "run", "--temp", "-S", "train.seed=1", "-S", "train.epochs=3", "train")
    process = start(clone, *command)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert "resuming after step" in clone.run(*command)


@pytest.mark.long
def test_an_experiment_of_the_queue_goes_on(clone: Clone) -> None:
    command = ("exp", "run", "--queue", "-S", "train.seed=1", "-S", "train.epochs=3", "train")
    clone.dvc(*command, "--name", "killed")
    worker = clone.start("dvc", "queue", "start", DDPM_SAVE_SECONDS="0")
    await_state(clone)
    (lock,) = (clone.path / ".resume").glob("train-*/lock")
    os.kill(int(lock.read_text()), signal.SIGKILL)
    worker.communicate(timeout=SECONDS)  # the worker in the background has the pipe until it ends
    assert "Failed" in clone.finished_queue()
    clone.dvc(*command, "--name", "again")
    clone.dvc("queue", "start")
    status = clone.finished_queue()
    assert "Success" in status, f"{status}\n{clone.dvc('queue', 'logs', 'again')}"
    assert "resuming after step" in clone.dvc("queue", "logs", "again")
