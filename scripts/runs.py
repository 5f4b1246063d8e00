"""Read the params, metrics and hashes of a run: the workspace, a revision, an experiment or a record."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCM, resolve_rev
from dvc.stage import PipelineStage
from dvc.utils.flatten import flatten
from dvc.utils.serialize import parse_yaml

from exact_stages.commands import write
from exact_stages.console import UserError, shown
from scripts.readable import check_readable

PIPELINE, ENDS = "dvc.yaml", ["params.yaml", "dvc.lock"]
ABSENT, CACHED = ("deleted", "not in cache"), ("data/", "models/")  # states and folders of what a clone need not have
TRAINED = "models/ddpm.safetensors"  # by the stage train
RECORD = "record.json"  # of a record: its facts, and all metrics that are JSON
RECORDED = {"params.yaml": "params.yaml", "samples.png": "metrics/draw/by_class.png"}  # its other files


@dataclass(frozen=True)
class Run:
    """The name of a run and its files by path; reading an absent file gives an empty result."""

    name: str
    files: dict[str, bytes]  # params.yaml, dvc.lock, and the metrics that its stages wrote
    commit: str = ""  # of the revision, or the one that the workspace is based on

    @property
    def model(self) -> str:
        """Return the model file that is sampled."""
        return str(self.flat("params.yaml").get("sample.model", TRAINED))

    @property
    def hashes(self) -> dict[str, str]:
        """Return the MD5 of everything that the stages read and wrote, by path."""
        stages = self.mapping("dvc.lock").get("stages", {}).values()
        ends = [each for stage in stages for each in [*stage.get("deps", []), *stage.get("outs", [])]]
        return {each["path"]: each["md5"] for each in ends}

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


def open_run(rev: str) -> Run:
    """Read the workspace if `rev` is empty, a record such as results/fashion, or any revision that DVC knows.

    Its numbers must belong together, as params.yaml and dvc.lock tell; those of the workspace to its code, too.

    Raises:
        UserError: there is no such run, or it is not up to date.
    """
    if not Path("params.yaml").is_file():
        raise UserError("params.yaml: no such file; run this at the top of the repository")
    if not rev:
        check_readable()
        write(check=True)
        files = {path: Path(path).read_bytes() for path in [*ENDS, *_metrics("workspace")] if Path(path).is_file()}
        return Run("workspace", files, _git("rev-parse", "HEAD").decode().strip())
    if (Path(rev) / RECORD).is_file():
        return _record(Path(rev))
    try:
        commit = _git("rev-parse", "--verify", f"{resolve_rev(SCM('.'), rev)}^{{commit}}").decode().strip()
    except (DvcException, subprocess.CalledProcessError):
        raise UserError(f"{rev}: no revision, experiment or record; see git log, dvc exp list and results/") from None
    ends = _git("ls-tree", "-z", "--name-only", commit, "--", *ENDS).decode().split("\0")[:-1]
    return Run(rev, {path: _git("show", f"{commit}:{path}") for path in [*ends, *_metrics(rev, commit)]}, commit)


def _metrics(name: str, commit: str = "") -> list[str]:
    """Return the metrics that the stages of a run wrote; metrics/ can have those of earlier params, too.

    All stages must have run, with its params and on what the stages before them wrote last; in the workspace, with its
    code and data, too. Absent files are no change.

    Raises:
        UserError: a stage must run again, or the pipeline cannot be read.
    """
    try:
        with Repo(".", rev=commit or None) as repo:
            stages = [each for each in repo.index.stages if isinstance(each, PipelineStage)]
            # Not the stage code, which always runs: its check tells whether it has to. Not those of studies.
            stages = [each for each in stages if each.name != "code" and each.path_in_repo == PIPELINE]
            found = {} if commit else repo.status()
            status = {name: each for name, each in found.items() if name != "code" and f"{PIPELINE}:" not in name}
            made = {out.fs_path: out.hash_info for stage in stages for out in stage.outs}
            kept = {stage.name: [out for out in stage.outs if not out.use_cache] for stage in stages}
            for stage in stages:
                whole = [*(dep for dep in stage.deps if isinstance(dep, ParamsDependency)), *kept[stage.name]]
                replaced = [dep for dep in stage.deps if made.get(dep.fs_path, dep.hash_info) != dep.hash_info]
                states = [*(each.status() for each in whole), {dep.def_path: "modified" for dep in replaced}]
                status[stage.name] = [*status.get(stage.name, []), *({"": each} for each in states)]
            stale = [f"{stage} ({cause})" for stage, each in status.items() for cause in _changes(each)[:1]]
    except DvcException as error:
        raise UserError(f"{name}: DVC cannot read its pipeline ({shown(str(error))})") from None
    if stale:
        raise UserError(f"{name}: not up to date: {', '.join(stale)}; run dvc repro{' there' if commit else ''}")
    return sorted(out.def_path for outs in kept.values() for out in outs)


def _changes(status: list[Any]) -> list[str]:
    """Return the files, and the command, that have changed since a stage ran, of what DVC says about it."""
    found = list[str]()
    for each in status:
        if isinstance(each, str):
            found.append(each)  # "changed command"
        else:
            states = [state for states in each.values() for state in states.items()]
            told = [(path, state) for path, state in states if state not in ABSENT or not path.startswith(CACHED)]
            found += [next(iter(state)) if isinstance(state, dict) else path for path, state in told]
    return found


def _record(folder: Path) -> Run:
    name = folder.as_posix()
    facts = Run(name, {RECORD: (folder / RECORD).read_bytes()}).mapping(RECORD)
    files = {f"metrics/{each}.json": json.dumps(values).encode() for each, values in facts.pop("metrics", {}).items()}
    files |= {path: (folder / each).read_bytes() for each, path in RECORDED.items() if (folder / each).is_file()}
    return Run(name, files, facts.get("commit") or "")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout
