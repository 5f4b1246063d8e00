"""Whatever ends a stage before its time, the next run leaves the bytes of an undisturbed one, and nothing else."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAMLError

from tests.with_dvc.dvc_clone import LATE, SAMPLE, SAVING, TRAIN, TWO, Clone, Make, begun, copy_clone, left

pytestmark = pytest.mark.pipeline
MODEL = "models/ddpm.safetensors"
SECONDS_TO_END = 15


def ended(process: "subprocess.Popen[str]") -> str:
    """Return what was printed, once every process that has the pipe, children among them, has ended."""
    printed, _ = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode != 0
    return printed


@pytest.mark.long
def test_kill_9_at_random_moments(clone: Clone, undisturbed: Make) -> None:
    clone.edit_params(LATE)
    chance = random.Random(0)
    for name, seconds in [("train", 8.0)] * 3 + [("sample@population", 3.0)] * 3:
        process = clone.start(*SAMPLE, **SAVING)
        assert process.stdout
        while (line := process.stdout.readline()) and f"Running stage '{name}'" not in line:
            pass
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            time.sleep(chance.uniform(0, seconds))
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        try:
            clone.lock()
        except YAMLError:  # DVC writes it in place; docs/how-to/fix-it.md says what to do
            clone.git("checkout", "dvc.lock")
    clone.run(*SAMPLE)
    assert left(clone) == left(undisturbed({}))


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "number", "launch"),
    [
        pytest.param("group", signal.SIGINT, {}, id="ctrl-c"),
        pytest.param("dvc", signal.SIGKILL, TWO, id="orphans"),
    ],
)
def test_training_that_is_cut_off_continues(
    clone: Clone, undisturbed: Make, target: str, number: signal.Signals, launch: dict[str, str]
) -> None:
    clone.edit_params(LATE)
    process = begun(clone, *TRAIN, **launch)
    (os.killpg if target == "group" else os.kill)(process.pid, number)
    printed = ended(process)
    assert printed.count("error: train: interrupted") == 1, printed
    assert launch or "Traceback" not in printed, printed  # torchrun adds a report of its own
    printed = clone.run(*SAMPLE, **launch)
    assert printed.count("train: continues") == 1, printed
    assert left(clone) == left(undisturbed(launch))


@pytest.mark.long
def test_two_machines_train_what_two_processes_train(clone: Clone, undisturbed: Make, tmp_path: Path) -> None:
    clone.edit_params(LATE)
    second = copy_clone(clone, tmp_path / "second")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    meeting = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(port))
    started = [
        each.start("torchrun", *meeting, "--node-rank", str(rank), "-m", "stages.train")
        for rank, each in enumerate((clone, second))
    ]
    for process in started:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
    expected = undisturbed(TWO).bytes_under("models")
    assert clone.bytes_under("models") == expected
    assert second.bytes_under("models") != expected, "the second writes nothing"


@pytest.mark.long
def test_a_mistake_is_said_once_by_two_processes(clone: Clone) -> None:
    clone.edit_params({"train.lr": "fast"})
    printed = clone.run(*TWO["DDPM_LAUNCH"].split(), "-m", "stages.train", code=1)
    assert printed.count("error: ") == 1, printed
    assert printed.count("train.lr: ") == 1, printed
