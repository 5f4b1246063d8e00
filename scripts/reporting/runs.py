"""Read the params, metrics and hashes of a run: the workspace, a revision, an experiment or a record."""

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCM, resolve_rev
from dvc.utils.flatten import flatten
from dvc.utils.serialize import parse_yaml

from exact_stages.console import UserError, shown
from scripts.readable import check_readable
from scripts.reporting.staleness import pipeline, stale

MAIN = ("main", "origin/main")
TRAINED = "models/ddpm.safetensors"  # by the stage train
RECORD = "record.json"  # of a record: its facts, and all metrics that are JSON
RECORDED = {"params.yaml": "params.yaml", "samples.png": "metrics/draw/by_class.png"}  # its other files


@dataclass(frozen=True)
class Run:
    """The name of a run and its files by path; reading an absent file gives an empty result."""

    name: str
    files: dict[str, bytes]  # params.yaml, and the files in metrics/ of up-to-date stages
    commit: str = ""  # of the revision, or the one that the workspace is based on
    stale: dict[str, str] = field(default_factory=dict)  # stages that are not up to date, and why
    hashes: dict[str, str] = field(default_factory=dict)  # MD5 of everything that up-to-date stages read and wrote
    facts: dict[str, Any] = field(default_factory=dict)  # of a record: commit, command, date and machine

    @property
    def model(self) -> str:
        """Return the model file that is sampled."""
        return str(self.flat("params.yaml").get("sample.model", TRAINED))

    @property
    def left_out(self) -> str:
        """Name the stages that are not up to date in one line; empty if there are none."""
        names = ", ".join(f"{name} ({cause})" for name, cause in self.stale.items())
        return names and f"{self.name}: not up to date with this run, numbers left out: {names}"

    def mapping(self, path: str) -> dict[str, Any]:
        """Read a JSON or YAML file.

        Raises:
            UserError: the file is neither, or does not hold a mapping.
        """
        read: Callable[[str], Any] = json.loads if path.endswith(".json") else lambda text: parse_yaml(text, path)
        try:
            values = (read(self.files[path].decode()) if path in self.files else {}) or {}
        except (ValueError, DvcException) as error:  # encoding, JSON, YAML
            raise UserError(f"{path} of {self.name}: cannot be read ({shown(str(error))}); make it again") from None
        if not isinstance(values, dict):
            raise UserError(f"{path} of {self.name}: holds no mapping of names to values; make it again with dvc repro")
        return values

    def flat(self, path: str) -> dict[str, Any]:
        """Read the same file, flattened to dotted names."""
        return dict(flatten(self.mapping(path)))

    def picture(self, path: str) -> str:
        """Return an image as a data URI; empty if it is absent."""
        if path not in self.files:
            return ""
        return f"data:{guess_type(path)[0]};base64,{base64.b64encode(self.files[path]).decode()}"


def open_run(rev: str) -> Run:
    """Read the workspace if `rev` is empty, a record such as results/fashion, or any revision that DVC knows.

    Raises:
        UserError: there is no such run, or the workspace cannot be read.
    """
    if not Path("params.yaml").is_file():
        raise UserError("params.yaml: no such file; run this at the top of the repository")
    if not rev:
        check_readable()
        return _of_pipeline("workspace", None, _commit("HEAD"))
    if (Path(rev) / RECORD).is_file():
        return _record(Path(rev))
    try:
        commit = _commit(str(resolve_rev(SCM("."), rev)))
    except DvcException:
        commit = ""
    if not commit:
        raise UserError(f"{rev}: no revision, experiment or record; see git log, dvc exp list and results/")
    return _of_pipeline(rev, commit, commit)


def main_run() -> Run | None:
    """Return the run of branch main, which others are compared with; None if there is no such branch."""
    commit = next(filter(None, map(_commit, MAIN)), "")
    return _of_pipeline("main", commit, commit) if commit else None


def _record(folder: Path) -> Run:
    name = folder.as_posix()
    facts = Run(name, {RECORD: (folder / RECORD).read_bytes()}).mapping(RECORD)
    files = {f"metrics/{each}.json": json.dumps(values).encode() for each, values in facts.pop("metrics", {}).items()}
    files |= {path: (folder / each).read_bytes() for each, path in RECORDED.items() if (folder / each).is_file()}
    return Run(name, files, facts.get("commit") or "", facts=facts)


def _of_pipeline(name: str, rev: str | None, commit: str) -> Run:
    """Read what the up-to-date stages of the workspace, or of a revision, have written."""
    try:
        with Repo(".", rev=rev, uninitialized=True) as repo:
            left_out = stale(repo)
            stages = [stage for stage in pipeline(repo).values() if stage.name not in left_out]
            kept = [out.fs_path for stage in stages for out in stage.outs if not out.use_cache]
            paths = [repo.fs.join(repo.root_dir, "params.yaml"), *kept]
            read = {repo.fs.relpath(path, repo.root_dir): path for path in paths if repo.fs.isfile(path)}
            files = {path: repo.fs.cat_file(fs_path) for path, fs_path in read.items()}
            ends = [each for stage in stages for each in [*stage.deps, *stage.outs] if each not in stage.params]
            hashes = {repo.fs.relpath(each.fs_path, repo.root_dir): each.hash_info.value for each in ends}
    except DvcException as error:
        raise UserError(f"{name}: DVC cannot read its pipeline ({shown(str(error))})") from None
    return Run(name, files, commit, left_out, hashes)


def _commit(rev: str) -> str:
    """Return the commit that git finds for a revision; empty if there is none."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
