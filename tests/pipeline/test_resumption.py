"""Killing the pipeline with real dvc: whatever is cut off goes on, and ends with the bytes of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc_clone import ROOT, SECONDS, Built, Clone, copy_clone, ran

sys.path.insert(0, str(ROOT / "tests"))
from faults.campaign import campaign

pytestmark = pytest.mark.pipeline
LATE = {"train.seed": 1, "train.epochs": 3}  # a run that the cache does not have


@pytest.fixture(scope="module")
def undisturbed(pipeline: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """`pipeline` with other params, run without a kill."""
    folder = tmp_path_factory.mktemp("undisturbed")
    clone = copy_clone(pipeline.clone, folder)
    clone.edit_params(LATE)
    clone.dvc("repro", "train")
    yield clone
    shutil.rmtree(folder)


def left(clone: Clone) -> dict[str, bytes]:
    lock = {"dvc.lock": (clone.path / "dvc.lock").read_bytes()}
    return lock | clone.bytes_under("models") | clone.bytes_under("metrics/train")


def start(clone: Clone, *command: str) -> "subprocess.Popen[str]":
    """The command, once it has saved a state."""
    process = clone.start(*command, DDPM_SAVE_SECONDS="0")
    await_state(clone, process)
    return process


def await_state(clone: Clone, process: "subprocess.Popen[str] | None" = None) -> None:
    """Wait until training has saved a state."""
    deadline = time.monotonic() + 300
    while not list((clone.path / ".resume").glob("train-*/1.safetensors")):
        assert process is None or process.poll() is None, f"ended too early:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


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
    command = ("dvc", "exp", "run", "--temp", "-S", "train.seed=1", "-S", "train.epochs=3")
    process = start(clone, *command)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert "resuming after step" in clone.run(*command)


def test_an_experiment_of_the_queue_goes_on(clone: Clone) -> None:
    command = ("exp", "run", "--queue", "-S", "train.seed=1", "-S", "train.epochs=3")
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


def test_a_second_run_of_the_same_training_names_the_first(clone: Clone) -> None:
    clone.edit_params(LATE)
    process = start(clone, "python", "-m", "stages.train")
    try:
        printed = clone.run("python", "-m", "stages.train", code=1)
        assert printed.startswith(f"error: train: process {process.pid} is already at this very run"), printed
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_short_campaign_loses_nothing(pipeline: Built, tmp_path: Path) -> None:
    counts = campaign(tmp_path, kills=3, seed=3, undisturbed=pipeline.clone)
    shutil.rmtree(tmp_path)
    assert counts["comparisons of all files"] >= 1
    assert counts["files lost"] == counts["files different"] == 0
