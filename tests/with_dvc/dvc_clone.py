"""A throw-away clone of the repository with a configuration of seconds, in which real `dvc` runs."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
RAW = ROOT / "data/mnist"
SECONDS = 900  # for one command, on a machine that is busy with other things
STAGES = [
    *("download", "preprocess", "forward_diffusion", "classifier", "train"),
    *("sample@preview", "sample@scored", "filter", "evaluate", "draw", "likelihood"),
    "classification_accuracy_score",
]
PICTURES = [
    "metrics/forward_diffusion/strip.png",
    *(f"metrics/draw/{name}.png" for name in ("by_class", "samples", "denoising", "neighbours")),
]
TINY = {
    "data.set": "data/mnist",
    "classifier.images_seen": 2560,
    "model.channels": [8, 16],
    "model.patch_size": 2,
    "model.attention": False,
    "train.epochs": 1,
    "train.batch_size": 500,
    "train.lr": 0.001,
    "train.classes": [7],
    "train.validation": 0.02,
    "train.log_every": 1,
    "sample.preview.count": 8,
    "sample.preview.steps": 20,
    "sample.preview.keep_every": 2,
    "sample.scored.count": 64,
    "sample.scored.steps": 5,
    "filter.least_probability": 0,
    "likelihood.images": 10,
    "classification_accuracy_score.count": 64,
}

TRAIN, SAMPLE = ("dvc", "repro", "train"), ("dvc", "repro", "sample@scored")
LATE = {  # a run that the cache does not have, of 123 steps, and 8 batches of samples
    "train.seed": 1,
    "train.epochs": 2,
    "train.batch_size": 100,
    "sample.scored.count": 1000,
    "sample.scored.steps": 10,
}
SAVING = {"DDPM_SAVE_SECONDS": "0"}
TWO = {"DDPM_LAUNCH": "torchrun --nproc-per-node 2"}
WORKERS = {"DDPM_WORKERS": "2"}


class Clone(NamedTuple):
    """A git repository with its own DVC cache and settings."""

    path: Path

    def run(self, *command: str, code: int = 0, **variables: str) -> str:
        """Return what the command prints; the test fails unless it exits with `code`."""
        process = self.start(*command, **variables)
        try:
            printed, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            pytest.fail(f"{' '.join(command)}: not done after {SECONDS} s\n{printed}", pytrace=False)
        if process.returncode != code:
            pytest.fail(f"{' '.join(command)}: exit code {process.returncode}, not {code}\n{printed}", pytrace=False)
        return printed

    def start(self, *command: str, **variables: str) -> "subprocess.Popen[str]":
        """Begin a command, in a process group of its own so that it can be killed with its children."""
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=environment(self.path.parent) | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return self.run("dvc", *arguments, code=code)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "test")

    def edit_params(self, values: Mapping[str, Any]) -> None:
        """Set values, each named by its dotted path, and keep the comments, as `dvc exp run -S` does."""
        yaml, file = YAML(), self.path / "params.yaml"
        params = yaml.load(file)
        for name, value in values.items():
            *sections, key = name.split(".")
            section = params
            for part in sections:
                section = section[part]
            assert key in section, f"params.yaml has no {name}"
            section[key] = value
        yaml.dump(params, file)

    def append(self, file: str, line: str) -> None:
        with (self.path / file).open("a") as opened:
            opened.write(f"{line}\n")

    def bytes_under(self, *folders: str) -> dict[str, bytes]:
        files = (path for folder in folders for path in (self.path / folder).rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files}

    def lock(self) -> dict[str, Any]:
        return YAML(typ="safe").load(self.path / "dvc.lock")["stages"]


class Built(NamedTuple):
    """A clone that is not to be changed, and what dvc printed when it ran there."""

    clone: Clone
    output: str


def environment(scratch: Path) -> dict[str, str]:
    """Return the user's environment without what steers git, DVC or the pipeline; DVC keeps its files in `scratch`.

    Without SHELL, DVC runs the stages in /bin/sh, which on Debian stays between DVC and a command without `exec`.
    """
    steering = ("DDPM_", "DVC_", "GIT_", "OMP_", "MKL_", "PYTHONPATH", "SHELL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    data = os.environ.get("DDPM_DATA_DIR") or (str(RAW) if [*RAW.glob("*-ubyte*")] else "")  # without it, the network
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "DDPM_DATA_DIR": data,
        "DDPM_DEVICE": "cpu",
        "DDPM_WORKERS": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(scratch / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(scratch / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(scratch / "system"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def new_clone(folder: Path) -> Clone:
    """Commit the repository as it stands in the working tree, with an empty cache and the tiny params."""
    clone = Clone(folder / "clone")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (clone.path / name).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # deleted files are listed as well
            shutil.copy2(ROOT / name, clone.path / name, follow_symlinks=False)
    (clone.path / "dvc.lock").unlink(missing_ok=True)  # the results of the default params: all is to run
    shutil.rmtree(clone.path / "metrics", ignore_errors=True)
    clone.git("init", "--quiet", "--initial-branch", "main")
    identify(clone)
    clone.edit_params(TINY)
    clone.commit()
    return clone


def git_clone(source: Clone, folder: Path, revision: str = "main") -> Clone:
    """Clone a revision by git, which has none of what DVC caches."""
    clone = Clone(folder / "clone")
    clone.path.mkdir(parents=True)
    clone.git("clone", "--quiet", str(source.path), ".")
    identify(clone)
    clone.git("reset", "--quiet", "--hard", clone.git("rev-parse", f"origin/{revision}").strip())
    return clone


def identify(clone: Clone) -> None:
    clone.git("config", "user.name", "Test")
    clone.git("config", "user.email", "test@example.org")


def copy_clone(source: Clone, folder: Path) -> Clone:
    """Copy all but checkpoints; the objects in the cache, which nobody writes to, are shared."""
    objects = source.path / ".dvc/cache/files"

    def copy(origin: str, destination: str) -> str:
        if Path(origin).is_relative_to(objects):
            os.link(origin, destination)
            return destination
        return shutil.copy2(origin, destination)

    states = shutil.ignore_patterns(".resume")
    shutil.copytree(source.path, folder / "clone", symlinks=True, ignore=states, copy_function=copy)
    return Clone(folder / "clone")


def build_once(
    factory: pytest.TempPathFactory, worker_id: str, name: str, build: Callable[[Path], tuple[Clone, str]]
) -> Built:
    """Build in a folder that all workers share, unless one of them has done so."""
    base = factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / name
    printed = folder / "printed.txt"
    with FileLock(f"{folder}.lock"):
        if not printed.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            _, output = build(folder)
            printed.write_text(output)
    return Built(Clone(folder / "clone"), printed.read_text())


def ran(output: str) -> set[str]:
    """Return the stages that dvc ran, by what it printed; but for `code`, and `check`, which runs after every edit."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE)) - {"check", "code"}


def stale(output: str) -> set[str]:
    """Return the stages of dvc.yaml that are out of date, by what `dvc status` printed; but for `code`, always named.

    Studies, of another dvc.yaml, are out of date from an edit of code until somebody has a night for them.
    """
    return set(re.findall(r"^([^\s:]+):$", output, re.MULTILINE)) - {"code"}


def restored(output: str) -> set[str]:
    """Return the stages whose outputs dvc restored from its run cache, by what it printed."""
    return set(re.findall(r"^Stage '([^']+)' is cached", output, re.MULTILINE)) - {"check"}


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until the condition holds, while the process runs."""
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, f"ended too early:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def left(clone: Clone) -> dict[str, bytes]:
    """All that training and sampling leave."""
    found = clone.bytes_under("models", "metrics/train", "data/samples")
    return found | {"dvc.lock": (clone.path / "dvc.lock").read_bytes()}


def begun(clone: Clone, *command: str, **launch: str) -> "subprocess.Popen[str]":
    """Start the command, and return when its training has saved a checkpoint."""
    began = time.time()
    process = clone.start(*command, **SAVING, **launch)
    saved = (clone.path / ".resume").glob
    wait_for(lambda: [path for path in saved("train-*.state") if path.stat().st_mtime > began], process)
    return process


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
