"""What is recorded is what ran, with real dvc: edits while a stage runs, orphans, processes that disagree."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import Built, Clone, await_state, copy_clone, left, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
LATE = {"train.seed": 1, "train.epochs": 3}  # a run that the cache does not have
TRAIN = ("dvc", "repro", "train")


def started(clone: Clone, *command: str) -> "subprocess.Popen[str]":
    """The command, once the training in it has saved a state: params, code and data have been read."""
    process = clone.start(*command, DDPM_SAVE_SECONDS="0")
    await_state(clone, process)
    return process


def edit(clone: Clone, what: str) -> str:
    """Change it, and return how the stage names it."""
    match what:
        case "params":
            clone.edit_params({"train.lr": 0.9})
            return "train.lr (0.001, now 0.9)"
        case "branch":
            clone.git("checkout", "--quiet", "-b", "other")
            clone.edit_params({"train.lr": 0.5})
            clone.append("stages/train.py", "# another branch")
            return "stages/train.py, train.lr (0.001, now 0.5)"
        case _:
            data = clone.path / "data/processed/train.safetensors"
            (clone.path / "other").write_bytes(data.read_bytes()[:-1] + b"\1")  # a corner, which was black
            os.replace(clone.path / "other", data)
            return "data/processed/train.safetensors"


@pytest.mark.parametrize("what", ["params", "branch", "data"])
def test_an_edit_while_a_stage_runs_is_not_recorded_for_what_ran_before(clone: Clone, what: str) -> None:
    clone.edit_params(LATE)
    clone.commit()
    lock = (clone.path / "dvc.lock").read_bytes()
    process = started(clone, *TRAIN)
    named = edit(clone, what)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 255, printed
    assert (
        f"error: train: nothing of this run is kept as output, for these changed while it ran: {named}; put them back"
        in printed
    ), printed
    assert (clone.path / "dvc.lock").read_bytes() == lock
    assert not (clone.path / "models/ddpm.safetensors").exists()
    assert not list((clone.path / "metrics/train").glob("*"))


def test_what_was_edited_and_put_back_costs_nothing_and_the_edit_is_trained_anew(clone: Clone) -> None:
    clone.edit_params(LATE)
    clone.commit()
    process = started(clone, *TRAIN)
    edit(clone, "params")
    process.communicate(timeout=300)
    edited = (clone.path / "params.yaml").read_bytes()
    clone.git("checkout", "params.yaml")
    printed = clone.dvc("repro", "train")
    assert "resuming after step" in printed, printed
    (clone.path / "params.yaml").write_bytes(edited)
    printed = clone.dvc("repro", "train")
    assert ran(printed) == {"train"}
    assert "resuming" not in printed, "the run cache and the states know the edit by its own name alone"


def test_short_stages_refuse_as_well(clone: Clone) -> None:
    clone.edit_params({"classifier.epochs": 3})
    process = clone.start("dvc", "repro", "classifier@a")
    lock = clone.path / ".resume/classifier-a.lock"
    while not (lock.exists() and lock.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)  # it reads its params right behind
    clone.edit_params({"classifier.lr": 0.002})
    printed, _ = process.communicate(timeout=300)
    assert (
        "error: classifier-a: nothing of this run is kept as output, for these changed while it ran: classifier.lr ("
        in printed
    ), printed
    assert not (clone.path / "models/classifier-a.safetensors").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a stage hears of dvc's death on Linux alone")
@pytest.mark.parametrize("seconds", [0, 0.3, 1.5])
def test_an_orphan_ends_and_the_next_run_records_its_own(pipeline: Built, tmp_path: Path, seconds: float) -> None:
    clone = copy_clone(pipeline.clone, tmp_path)
    clone.edit_params({**LATE, "train.epochs": 20})
    process = clone.start(*TRAIN)
    assert process.stdout
    while "Running stage 'train'" not in process.stdout.readline():
        pass
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    clone.edit_params({"train.seed": 2, "train.epochs": 1})
    printed = clone.dvc("repro", "train")
    mine = left(clone)
    process.communicate(timeout=60)  # until the orphan, which has the pipe as well, has ended
    assert left(clone) == mine
    assert "nothing of this run" not in printed
    assert not ran(clone.dvc("repro", "train")), "what is there is what the lock says"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"train.lr": 0.1}, "train.lr: 0.1 where process 0 has 0.001"),
        ({}, r"src/ddpm/training/muon.py: \w{16} where process 0 has \w{16}"),
    ],
)
def test_machines_that_disagree_train_nothing(
    clone: Clone, tmp_path: Path, edits: dict[str, object], told: str
) -> None:
    second = copy_clone(clone, tmp_path / "second")
    if edits:
        second.edit_params(edits)
    else:
        second.append("src/ddpm/training/muon.py", "# another version")
    settings = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(29500 + os.getpid() % 2000)}
    command = ("python", "-m", "stages.train")
    processes = [
        each.start(*command, **settings, PET_NODE_RANK=str(rank), DDPM_PROCESSES="1")
        for rank, each in enumerate((clone, second))
    ]
    model = clone.path / "models/ddpm.safetensors"
    before = model.stat().st_mtime_ns
    for process in processes:
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 1, printed
        assert re.search(f"^error: process 1 has {told}; start all from the same files$", printed, re.MULTILINE), (
            printed
        )
        assert "Traceback" not in printed
    assert model.stat().st_mtime_ns == before
