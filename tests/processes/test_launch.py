"""What starts a stage watches DVC, for the stage's own processes may run where DVC is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddpm.processes import launch

COMMAND = [sys.executable, launch.__file__, "python", "-m", "x"]


@pytest.mark.parametrize("launcher", ["no-such-program -x", "python '"])
def test_a_launcher_that_cannot_start_ends_in_one_line(launcher: str) -> None:
    ended = subprocess.run(COMMAND, env=os.environ | {"DDPM_LAUNCH": launcher}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: DDPM_LAUNCH: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("before", ["", "env A=1 "])
def test_of_srun_one_dead_task_ends_all_and_only_steps_of_its_name_are_cancelled(before: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    for program, does in {
        "srun": 'echo $SLURM_KILL_BAD_EXIT $STAGE_PARENT "$@"',
        "squeue": "echo 7.0 another",
        "scancel": f'echo "$@" >>{told}',
    }.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / program).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    launcher = os.environ | {"PATH": path, "DDPM_LAUNCH": f"{before}srun --nodes 2 torchrun"}
    printed = subprocess.run(COMMAND, env=launcher, capture_output=True, text=True, check=True).stdout.split()
    name = printed.pop(2)
    assert name.startswith("--job-name=ddpm-")
    assert printed == ["1", "0", "--nodes", "2", "torchrun", "-m", "x"]
    deadline = time.monotonic() + 20
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    assert told.read_text() == f"--me --name {name.partition('=')[2]}\n"
