"""Whatever ends a stage before its time, the next run leaves the bytes of an undisturbed one, and nothing else."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.with_dvc.dvc_clone import LATE, SAMPLE, SAVING, TRAIN, TWO, WORKERS, Clone, begun, copy_clone, left
from tests.with_dvc.slurm import free_ports

SECONDS_TO_END = 15


def ended(process: "subprocess.Popen[str]") -> str:
    """Return what was printed, once every process that has the pipe, children among them, has ended."""
    printed, _ = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode != 0
    return printed


def stage_and_worker(dvc: "subprocess.Popen[str]") -> tuple[psutil.Process, psutil.Process]:
    """Return the process of the stage, and the one that it has forked."""
    found = [each for each in psutil.Process(dvc.pid).children(recursive=True) if "stages.train" in each.cmdline()]
    (worker,) = [each for each in found if each.ppid() in {other.pid for other in found}]
    return worker.parent() or worker, worker


@pytest.mark.long
@pytest.mark.parametrize("stage", ["train", "sample@scored"])
def test_workers_killed_at_random_moments_continue_to_the_same_bytes(
    undisturbed: Clone, tmp_path: Path, stage: str
) -> None:
    clone = copy_clone(undisturbed, tmp_path)
    twice = ("python", "-m", "exact_stages", "twice", stage, "--kill", "1", "--seed", "9")
    printed = clone.run(*twice, PYTHONPATH="src", **SAVING, **WORKERS)
    assert printed.count("outputs are equal") == 2, printed
    shutil.rmtree(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "number", "launch", "said"),
    [
        pytest.param("group", signal.SIGINT, WORKERS, "train: interrupted", id="ctrl-c"),
        pytest.param("group", signal.SIGTERM, WORKERS, "train: interrupted", id="sigterm"),
        pytest.param("dvc", signal.SIGKILL, TWO, "train: interrupted", id="orphans"),
        pytest.param("dvc", signal.SIGKILL, WORKERS, "train: interrupted", id="orphaned workers"),
        pytest.param("stage", signal.SIGKILL, WORKERS, "", id="kill -9 of the stage"),
        pytest.param("worker", signal.SIGKILL, WORKERS, "a worker was killed", id="kill -9 of a worker"),
    ],
)
def test_training_that_is_cut_off_continues_in_one_process(
    clone: Clone, undisturbed: Clone, target: str, number: signal.Signals, launch: dict[str, str], said: str
) -> None:
    clone.edit_params(LATE)
    process = begun(clone, *TRAIN, **launch)
    if target in ("stage", "worker"):
        stage_and_worker(process)[target == "worker"].send_signal(number)
    else:
        (os.killpg if target == "group" else os.kill)(process.pid, number)
    printed = ended(process)
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == bool(said), printed
    assert not said or errors[0].startswith(f"error: {said}"), printed
    assert launch is TWO or "Traceback" not in printed, printed  # torchrun adds a report of its own
    printed = clone.run(*SAMPLE)
    assert printed.count("train: continues") == 1, printed
    assert left(clone) == left(undisturbed)


@pytest.mark.long
def test_two_machines_train_what_one_process_trains(clone: Clone, undisturbed: Clone, tmp_path: Path) -> None:
    clone.edit_params(LATE)
    second = copy_clone(clone, tmp_path / "second")
    meeting = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_ports(1)[0]))
    started = [
        each.start("torchrun", *meeting, "--node-rank", str(rank), "-m", "stages.train")
        for rank, each in enumerate((clone, second))
    ]
    for process in started:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
    expected = undisturbed.bytes_under("models")
    assert clone.bytes_under("models") == expected
    assert second.bytes_under("models") != expected, "the second writes nothing"


@pytest.mark.long
def test_a_mistake_is_said_once_by_two_processes(clone: Clone) -> None:
    clone.edit_params({"train.lr": "fast"})
    printed = clone.run(*TWO["DDPM_LAUNCH"].split(), "-m", "stages.train", code=1)
    assert printed.count("error: ") == 1, printed
    assert printed.count("train.lr: ") == 1, printed
