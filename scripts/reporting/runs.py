"""What git keeps of a run, of the workspace, a folder, a revision or an experiment: metrics/, params.yaml, dvc.lock."""

import base64
import csv
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.scm import SCM, resolve_rev
from dvc.utils.flatten import flatten
from dvc.utils.serialize import parse_yaml

from ddpm.pipeline.console import UserError, shown

KEPT = ("metrics", "params.yaml", "dvc.lock", "dvc.yaml")
TYPES = {".png": "image/png", ".gif": "image/gif"}
MAIN = ("main", "origin/main")


@dataclass(frozen=True)
class Run:
    """The files of one run by their paths, and what it is called; reading a file that is not there gives nothing."""

    name: str
    files: dict[str, bytes]
    commit: str = ""  # of a revision, or the one that the workspace started from

    @property
    def shown(self) -> dict[str, bytes]:
        """All but dvc.yaml, which only says what the others are."""
        return {path: data for path, data in self.files.items() if path != "dvc.yaml"}

    def mapping(self, path: str) -> dict[str, Any]:
        """A JSON or YAML file.

        Raises:
            UserError: it is none, or holds no mapping.
        """
        read: Callable[[str], Any] = json.loads if path.endswith(".json") else lambda text: parse_yaml(text, path)
        values = self._read(path, lambda text: read(text) or {})
        if not isinstance(values, dict):
            raise UserError(f"{path} of {self.name}: holds no mapping of names to values; make it anew with dvc repro")
        return values

    def flat(self, path: str) -> dict[str, Any]:
        """The same by dotted names."""
        return dict(flatten(self.mapping(path)))

    def table(self, path: str) -> list[dict[str, float]]:
        """The rows of a csv file of numbers."""

        def numbers(text: str) -> list[dict[str, float]]:
            return [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]

        return self._read(path, numbers) or []

    def picture(self, path: str) -> str:
        """A picture as a data URI, or nothing."""
        if path not in self.files:
            return ""
        return f"data:{TYPES[Path(path).suffix]};base64,{base64.b64encode(self.files[path]).decode()}"

    def _read(self, path: str, read: Callable[[str], Any]) -> Any:
        try:
            return read(self.files[path].decode()) if path in self.files else {}
        except (ValueError, TypeError, DvcException) as error:  # of encoding, JSON, YAML, or a cell that is no number
            raise UserError(f"{path} of {self.name}: cannot be read ({shown(str(error))}); make it anew") from None


def open_run(rev: str) -> Run:
    """The workspace where `rev` is empty; a folder such as docs/fashion; or what DVC takes for a revision.

    Raises:
        UserError: it is none of these.
    """
    folder = Path(rev)
    if (folder / "params.yaml").is_file():
        paths = [each for name in KEPT for each in [folder / name, *sorted((folder / name).rglob("*"))]]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}
        return Run(rev or "workspace", files, "" if rev else _git("rev-parse", "HEAD").decode().strip())
    if not rev:
        raise UserError("params.yaml: no such file; run this at the top of the repository")
    try:
        commit = str(resolve_rev(SCM("."), rev))
    except DvcException:
        raise UserError(f"{rev}: no revision, experiment or folder of a run; see git log and dvc exp list") from None
    return Run(rev, _archived(commit), commit)


def main_run() -> Run | None:
    """The default, to which others are compared; None where no branch is called main."""
    for name in MAIN:
        if commit := _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip():
            return Run("main", _archived(commit), commit)
    return None


def _archived(commit: str) -> dict[str, bytes]:
    names = _git("ls-tree", "--name-only", commit, *KEPT).decode().split()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, *names) if names else b"\0" * 1024)) as archive:
        read = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in read.items() if file}


def _git(*command: str) -> bytes:
    """What git says, which is nothing where it fails."""
    return subprocess.run(["git", *command], capture_output=True).stdout
