"""The processed images of a data set: those of the workspace or, of another set, those that a copy of it makes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ddpm.pipeline.console import UserError
from studies.rare_class.keeping import SCRATCH

PROCESSED = Path("data/processed")


def processed_folder(wanted: str, current: str) -> Path:
    """Where the processed images of the set `wanted` are, which is perhaps the workspace's `current` one.

    A copy is a clone of the last commit that has the workspace's DVC cache; what was made there once comes from the
    cache. Data and params of the workspace stay as they are.

    Raises:
        UserError: the set cannot be made.
    """
    if wanted == current:
        return PROCESSED
    copy = SCRATCH / Path(wanted).name
    shutil.rmtree(copy, ignore_errors=True)
    copy.parent.mkdir(parents=True, exist_ok=True)
    settings = [f"data.set={wanted}", f"download.sets=[{Path(wanted).name}]"]
    print(f"making data/processed of {wanted} in {copy}", file=sys.stderr)
    _run(Path.cwd(), "git", "clone", "--quiet", ".", str(copy))
    _run(copy, "dvc", "cache", "dir", "--local", _run(Path.cwd(), "dvc", "cache", "dir"))
    _run(copy, "dvc", "exp", "run", "--quiet", *(f"--set-param={each}" for each in settings), "preprocess")
    return copy / PROCESSED


def _run(folder: Path, *command: str) -> str:
    """What a command prints on standard output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # with dvc, and python for stages
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{folder}: `{' '.join(command)}` failed, see above")
    return done.stdout.strip()
