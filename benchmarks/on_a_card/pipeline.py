"""How long `dvc repro` takes, stage by stage, in a copy of the project in which nothing has run.

The images are MNIST's, where DDPM_DATA_DIR names their folder or data/mnist is there, and else noise in files
of the same sizes, for times depend little on what is seen; then there is nothing to download.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.on_a_card.setting import Row, Setting, mode
from benchmarks.synthetic import ROOT, TINY, copy_stages, set_params, write_mnist_files
from ddpm.compute.device import Runtime
from ddpm.pipeline.console import UserError

RUNNING = re.compile(r"Running stage '([^']+)'")
MNIST_COUNTS, FEW = (60_000, 10_000), (600, 100)  # of training and of test images
NOISE = "data/noise"
OWN_IMAGES: dict[str, Any] = {"data.set": NOISE, "download.sets": []}


def stages(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """Seconds of every stage from its announcement to the next, start-up included, and of all.

    Raises:
        UserError: dvc or a stage failed; with what it said first of it.
    """
    data = folder_of_mnist(setting)
    what = f"`dvc repro` of {'MNIST' if data else 'noise'}, {mode()}"
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder, "workspace")
        copy_stages(workspace)
        set_params(workspace, (TINY if setting.small else {}) | ({} if data else OWN_IMAGES))
        if not data:
            write_mnist_files(workspace / NOISE, *(FEW if setting.small else MNIST_COUNTS))
        [*_] = dvc(workspace, data, "init", "--no-scm", "--quiet")
        stage, began = "", time.perf_counter()
        at = began
        for line in dvc(workspace, data, "repro"):
            if found := RUNNING.search(line):
                now = time.perf_counter()
                if stage:
                    yield Row(f"{what}: the stage `{stage}`", f"{now - at:.1f} s")
                stage, at = found[1], now
        end = time.perf_counter()
        yield Row(f"{what}: the stage `{stage}`", f"{end - at:.1f} s")
        yield Row(f"{what}: all stages", f"{end - began:.1f} s", setting.target("90 s on an H100"))


def folder_of_mnist(setting: Setting) -> Path | None:
    """Where the raw files are, if that is said or, in the whole setting, they are in the project."""
    if named := os.environ.get("DDPM_DATA_DIR"):
        return Path(named).resolve()
    return ROOT / "data" if (ROOT / "data/mnist").is_dir() and not setting.small else None


def dvc(workspace: Path, data: Path | None, *arguments: str) -> Iterator[str]:
    """The lines that the command prints, as it does; they are shown on stderr.

    Raises:
        UserError: see `stages`.
    """
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",  # a stage is announced when it begins
        "PYTHONSAFEPATH": "",
        "DDPM_DATA_DIR": str(data or ""),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(workspace.parent / "site"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    said = []
    for line in process.stdout:
        sys.stderr.write(line)
        said += [line.strip()] if line.strip() else []
        yield line
    if process.wait():
        reasons = [line for line in said if line.lower().startswith("error: ")] or said[-1:] or ["it said nothing"]
        raise UserError(f"dvc {arguments[0]}: {reasons[0].removeprefix('error: ').removeprefix('ERROR: ')}")
