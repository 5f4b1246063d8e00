"""Provide the processed images of a data set: from the workspace or, for another set, from a copy of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ddpm.pipeline.console import UserError
from studies.rare_class.keeping import SCRATCH

PROCESSED = Path("data/processed")


def processed_folder(wanted: str, current: str) -> Path:
    """Return the folder with the processed images of the set `wanted`; the workspace has the set `current`.

    Another set is made in a clone of the last commit, which shares the workspace's DVC cache. So it is computed only
    once. Data and params of the workspace do not change.

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
    """Run a command, and return its standard output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # finds dvc, and python for stages
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{folder}: `{' '.join(command)}` failed, see above")
    return done.stdout.strip()
