"""What a stage does before it imports the library: it hashes its code, and ends with its DVC."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exact_stages.files import sha256

ROOT = Path(__file__).parents[2]
BEGIN = "import sys; sys.argv[0] = '-m'; sys.path.insert(0, '.'); import stages; import os, time\n"


def start(code: str, root: Path = ROOT, **variables: str) -> "subprocess.Popen[str]":
    """Start a Python that imports the stages as `python -m` does, and then runs `code`."""
    kept = {name: value for name, value in os.environ.items() if name != "DDPM_PARENT"}
    command = [sys.executable, "-c", BEGIN + code]
    return subprocess.Popen(
        command, cwd=root, env=kept | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_code_is_hashed_before_it_is_imported_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    for name in ("stages", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/ddpm/training/.#loop.py").symlink_to("user@machine.123")  # as Emacs leaves it
    code = "from exact_stages.stage import CODE; print('torch' in sys.modules); print(*CODE.items(), sep='\\n')"
    printed, told = start(code, tmp_path).communicate(timeout=60)
    assert told == ""
    late, *hashes = printed.splitlines()
    assert late == "False"
    files = [path for folder in ("src/ddpm", "stages") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert hashes == [str((str(path.relative_to(ROOT)), sha256(path))) for path in files]


def test_ctrl_c_during_the_imports_ends_without_a_traceback() -> None:
    process = start("print('go', flush=True); time.sleep(60)")
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(("parent", "printed"), [(os.getpid(), "done\n"), (1 << 30, "")], ids=["alive", "dead"])
def test_a_stage_works_while_its_dvc_is_above_it(parent: int, printed: str) -> None:
    code = f"time.sleep({2 if printed else 60}); print('done')"
    assert start(code, DDPM_PARENT=str(parent)).communicate(timeout=30) == (printed, "")


def test_a_stage_ends_when_the_dvc_above_its_launcher_dies(tmp_path: Path) -> None:
    stage = f"{BEGIN}print(os.getpid(), flush=True); time.sleep(600)"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stage!r}])"
    dvc = f"""
import os, subprocess, sys
subprocess.run([sys.executable, "-c", {launcher!r}], env=os.environ | {{"DDPM_PARENT": str(os.getpid())}})
"""
    process = subprocess.Popen([sys.executable, "-c", dvc], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    began = time.monotonic()
    process.kill()
    process.communicate(timeout=30)  # until the stage and the launcher, which have the pipe as well, have ended
    assert time.monotonic() - began < 15


def test_a_python_without_the_packages_says_what_to_type() -> None:
    command = [sys.executable, "-S", "-m", "stages.train"]  # -S: no site-packages
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
