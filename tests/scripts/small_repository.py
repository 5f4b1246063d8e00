"""A small repository of DVC, for what can happen to it."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import ROOT, Clone

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and capabilities")
STAGE = """
import json, pathlib, sys
made = pathlib.Path(sys.argv[1])
made.parent.mkdir(exist_ok=True)
made.write_text(pathlib.Path("params.yaml").read_text() + made.name)
pathlib.Path("metrics").mkdir(exist_ok=True)
pathlib.Path("metrics", made.stem + ".json").write_text(json.dumps({"length": len(made.read_text())}))
"""
PIPELINE = """
stages:
  one:
    cmd: python stage.py made/one.bin
    deps: [stage.py]
    params: [lr]
    outs: [made/one.bin]
    metrics:
      - metrics/one.json:
          cache: false
  two:
    matrix: {n: [x, y]}
    cmd: python stage.py made/${item.n}.bin
    deps: [stage.py, made/one.bin]
    params: [lr]
    outs: ["made/${item.n}.bin"]
    metrics:
      - metrics/${item.n}.json:
          cache: false
"""
OUTPUT = "made/one.bin"
# Without what lets root read everything.
UNPRIVILEGED = (
    "import ctypes, os, sys; [ctypes.CDLL(None).prctl(24, n) for n in (1, 2)]; os.execvp(sys.argv[1], sys.argv[1:])"
)


def verify(clone: Clone, code: int = 0, *before: str) -> str:
    process = clone.start(*before, "python", "-m", "scripts.verify", PYTHONPATH=str(ROOT))
    try:
        printed, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == code, printed
    return printed.replace(f"{clone.path}/", "")


def cached(clone: Clone, md5: str) -> Path:
    return clone.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def object_of(clone: Clone, record: str, path: str) -> Path:
    """Of an output in dvc.lock or a *.dvc file, which write path and hash side by side."""
    lines = (clone.path / record).read_text().split(f"path: {path}\n")
    near = lines[1] if record == "dvc.lock" else lines[0]
    return cached(clone, near.split("md5: ")[-1 if record != "dvc.lock" else 1].split("\n")[0])


def overwrite(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def break_off(path: Path) -> bytes:
    """Leave half of a file, and return all of it."""
    data = path.read_bytes()
    path.chmod(path.stat().st_mode | stat.S_IWUSR)
    path.write_bytes(data[: len(data) // 2])
    return data


def bind(path: Path) -> None:
    """A socket; its address may not be long."""
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)
        listening.bind(path.name)
        os.chdir(here)
