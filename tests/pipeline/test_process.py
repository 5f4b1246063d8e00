"""What comes first in a stage: interruptions, streams and the parent, before any import."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(code: str, **options: object) -> "subprocess.Popen[str]":
    """A Python that has imported the stages as `python -m` does, and runs `code`."""
    begin = "import sys; sys.argv[0] = '-m'; sys.path.insert(0, '.'); import stages; import os, time\n"
    given = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, "-c", begin + code], **given)  # type: ignore[call-overload, no-any-return]


def test_ctrl_c_during_the_imports_is_one_line() -> None:
    slow = "print('go', flush=True)\nfor n in range(600):\n    try: time.sleep(0.1)\n    except BaseException: pass"
    process = start(slow)
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert (process.returncode, told.strip()) == (1, "interrupted")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_stage_whose_parent_is_dead_before_it_starts_ends() -> None:
    process = start("print('at work')", env=os.environ | {"DDPM_PARENT": "1"})
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 1


def test_a_stage_with_its_parent_goes_on_and_hands_the_name_to_nobody() -> None:
    code = "print(os.environ.get('DDPM_PARENT'))"
    process = start(code, env=os.environ | {"DDPM_PARENT": str(os.getpid())})
    assert process.communicate(timeout=60) == ("None\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_stage_ends_with_its_parent(tmp_path: Path) -> None:
    child = tmp_path / "child"
    inner = f"open({str(child)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    begin = "import sys; sys.argv[0] = '-m'; import stages; import os, time\n"
    middle = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {begin + inner!r}])"
    parent = subprocess.Popen([sys.executable, "-c", middle], cwd=ROOT)
    while not (child.exists() and child.read_text()):
        time.sleep(0.01)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child.read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_get_nothing_and_no_file_gets_what_is_printed(closed: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[0] = '-m'; import stages, os\n"
        f"file = open({str(tmp_path / 'data')!r}, 'w')\n"
        "print('out'); print('err', file=sys.stderr); os.write(2, b'err'); sys.stdout.flush(); file.write('data')\n"
    )
    subprocess.run(
        f'"{sys.executable}" -c "$CODE" {closed}', shell=True, check=True, cwd=ROOT, env=os.environ | {"CODE": code}
    )
    assert (tmp_path / "data").read_text() == "data"


def test_names_that_a_terminal_cannot_show_are_escaped() -> None:
    code = "import sys; print('\\u00e9\\u2588 \\udcff'); print('\\u00e9\\u2588', file=sys.stderr)"
    process = start(code, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert process.communicate(timeout=60) == ("\\xe9\\u2588 \\udcff\n", "\\xe9\\u2588\n")
    assert process.returncode == 0


def test_a_python_without_the_packages_says_what_to_type(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "stages.train"]  # -S: no site-packages
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: this Python lacks the project's packages; `source .venv/bin/activate` first, or `make repro`\n"
    )
