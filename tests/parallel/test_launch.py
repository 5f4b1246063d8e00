"""What starts a stage watches DVC, for the stage's own processes may run where DVC is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ddpm.parallel import launch

COMMAND = [sys.executable, launch.__file__, "python", "-c", "import os, sys, time; print(os.getpid()); time.sleep(60)"]
DVC = f"import subprocess; subprocess.run({COMMAND})"


def test_a_launcher_ends_when_dvc_is_killed() -> None:
    environment = os.environ | {"DDPM_LAUNCH": f"{sys.executable} -u", "DDPM_PARENT": ""}
    with subprocess.Popen([sys.executable, "-c", DVC], env=environment, stdout=subprocess.PIPE, text=True) as dvc:
        stage = psutil.Process(int(dvc.stdout.readline()))
        assert stage.ppid() == dvc.pid
        dvc.kill()
        stage.wait(10)


@pytest.mark.parametrize("launcher", ["no-such-program -x", "python '"])
def test_a_launcher_that_cannot_start_ends_in_one_line(launcher: str) -> None:
    ended = subprocess.run(COMMAND, env=os.environ | {"DDPM_LAUNCH": launcher}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: DDPM_LAUNCH: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("before", ["", "env A=1 "])
def test_srun_is_named_and_one_dead_task_ends_all(before: str, tmp_path: Path) -> None:
    (tmp_path / "srun").write_text('#!/bin/sh\necho $SLURM_KILL_BAD_EXIT $DDPM_PARENT "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, launch.__file__, "python", "-m", "x"]
    launcher = os.environ | {"PATH": path, "DDPM_LAUNCH": f"{before}srun --nodes 2 torchrun"}
    printed = subprocess.run(command, env=launcher, capture_output=True, text=True, check=True).stdout.split()
    name = printed.pop(2)
    assert name.startswith("--job-name=ddpm-")
    assert printed == ["1", "0", "--nodes", "2", "torchrun", "-m", "x"]


# A watcher that begins after its launcher has ended, and for safety ends where it would signal any process.
LATE = """
import os, runpy, time
fork = os.fork
os.fork = lambda: fork() or time.sleep(1) or 0
os.kill = lambda *_: os._exit(1)
"""


def test_a_late_watcher_signals_no_process_and_cancels_no_step_of_another_name(tmp_path: Path) -> None:
    for name, does in {"srun": "exit", "squeue": "echo 7.0 another", "scancel": f'echo "$@" >>{tmp_path}/told'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    told = tmp_path / "told"
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "DDPM_LAUNCH": "srun"}
    program = f"{LATE}runpy.run_path({launch.__file__!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", program, "python"], env=environment, check=True)
    deadline = time.monotonic() + 20
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    assert [line.split()[:2] for line in told.read_text().splitlines()] == [["--me", "--name"]]
