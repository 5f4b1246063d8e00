"""How long `dvc repro` takes, stage by stage, in a copy of the project in which nothing has run.

The images are MNIST's, where DDPM_DATA_DIR names their folder or data/mnist is there, and else noise in files
of the same sizes, for times depend little on what is seen; then there is nothing to download.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.on_a_card.setting import ROOT, Row, Setting, mode
from ddpm.runtime.console import UserError
from ddpm.runtime.device import Runtime
from ddpm.runtime.params import read_yaml

RUNNING = re.compile(r"Running stage '([^']+)'")
SIDE, CLASSES = 28, 10
MNIST_COUNTS, FEW = (60_000, 10_000), (600, 100)  # of training and of test images
NOISE = "data/noise"
OWN_IMAGES: dict[str, Any] = {"data.set": NOISE, "download.sets": []}
TINY: dict[str, Any] = {
    "classifier.channels": 1,
    "classifier.epochs": 1,
    "model.channels": [8, 16],
    "model.patch_size": 2,
    "train.epochs": 1,
    "sample.gallery.count": 8,
    "sample.gallery.steps": 20,
    "sample.gallery.keep_every": 2,
    "sample.population.count": 64,
    "sample.population.steps": 5,
    "likelihood.images": 10,
    "likelihood.terms": 3,
    "classification_accuracy_score.count": 64,
}


def stages(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """Seconds of every stage from its announcement to the next, start-up included, and of all.

    Raises:
        UserError: dvc or a stage failed; with what it said first of it.
    """
    data = folder_of_mnist(setting)
    what = f"`dvc repro` of {'MNIST' if data else 'noise'}, {mode()}"
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder, "workspace")
        copy_workspace(workspace, (TINY if setting.small else {}) | ({} if data else OWN_IMAGES))
        if not data:
            write_noise(workspace / NOISE, FEW if setting.small else MNIST_COUNTS)
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


def copy_workspace(workspace: Path, changes: Mapping[str, Any]) -> None:
    """What dvc runs on, with these params, each by its dotted name, and with no cache; it needs no git."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, workspace / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "dvc.yaml", workspace)
    params = read_yaml(ROOT / "params.yaml")
    for name, value in changes.items():
        *sections, key = name.split(".")
        section = params
        for each in sections:
            section = section[each]
        section[key] = value
    (workspace / "params.yaml").write_text(json.dumps(params))  # which is YAML, too


def write_noise(folder: Path, counts: tuple[int, int]) -> None:
    """MNIST's four files, with images of noise, so many to train on and to test, the classes equally many."""
    folder.mkdir(parents=True)
    source = np.random.default_rng(0)
    for prefix, count in zip(("train", "t10k"), counts, strict=True):
        images = source.integers(0, 256, (count, SIDE, SIDE), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % CLASSES
        header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes())


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
