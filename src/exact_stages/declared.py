"""Resolve dvc.yaml by DVC's own parser: the deps and params of each stage, and the files that DVC sees in a dep.

This takes half a second, with the import of DVC, whose own commands begin with the same `Repo` and loader.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.dependency import DatasetDependency, ParamsDependency
from dvc.dvcfile import load_file
from dvc.exceptions import DvcException
from dvc.repo import Repo

from exact_stages.console import UserError, shown
from exact_stages.files import read_yaml, sha256
from exact_stages.provenance import flat

STAGES = Path("dvc.yaml")
SMALL, BLOCK = 1 << 24, 1 << 12  # bytes of a dep of which each file is hashed by content; the least that a file counts
OWN = {"__pycache__", ".resume"}  # folders to which Python and a stage write while the stage runs


class Declared:
    """What the stages of dvc.yaml in the working folder declare, by name: fit, or fit@a for an item of a matrix.

    A dvc.yaml one folder below that says `wdir: ..` has further stages, which `dvc repro` leaves alone. Paths are
    relative to the working folder, or absolute if they lie outside the repository.
    """

    def __init__(self) -> None:
        """Resolve all stages; raise UserError if DVC cannot."""
        below = [each for each in sorted(Path().glob(f"*/{STAGES}")) if b"wdir: .." in each.read_bytes()]
        for each in (STAGES, *below, Path("params.yaml")):
            _ = read_yaml(each) if each.is_file() or each == STAGES else None  # whose errors name the line
        self.stages, self.groups, self._of = dict[str, Any](), dict[str, list[Any]](), dict[str, Path]()
        with explained(), Repo(os.getcwd(), uninitialized=True) as self._repo:
            self.ignore = self._repo.dvcignore
            for path in (STAGES, *below):
                with explained(path):
                    file = load_file(self._repo, str(path))
                    loader = file.LOADER(file, file.contents)  # without dvc.lock, which takes as long as all the rest
                    for name in file.contents.get("stages", ()):
                        if self._of.setdefault(name, path) != path:
                            raise UserError(f"{path}: {self.told(name)} has this name; choose another one")
                        self.groups[name] = []
                    for name in loader:
                        self.stages[name] = loader[name]
                        self.groups[name.partition("@")[0]].append(self.stages[name])
        self.outs = {self._named(out.fs_path) for stage in self.stages.values() for out in stage.outs}
        for group in [group for group, stages in self.groups.items() if not stages]:  # over an empty list
            file = load_file(self._repo, str(self.file(group)))
            each = file.contents["stages"][group]
            each |= {"matrix": {key: ["item"] for key in each["matrix"]}} if "matrix" in each else {"foreach": ["item"]}
            loader = file.LOADER(file, file.contents)
            with contextlib.suppress(DvcException):  # its items are no texts
                self.groups[group] = [loader[name] for name in loader if name.startswith(f"{group}@")]

    def file(self, name: str) -> Path:
        """Return the dvc.yaml that has a stage."""
        return self._of.get(name.partition("@")[0], STAGES)

    def told(self, name: str) -> str:
        """Begin a message about a stage."""
        return f"{self.file(name)}: {name}"

    def items(self, name: str) -> list[Any]:
        """Return DVC's stage of a name; or those of all items, if it names none or another one."""
        group = name.partition("@")[0]
        if group not in self.groups:
            raise UserError(f"dvc.yaml: no stage {shown(group)}; give it and its script in stages/ one name")
        return [self.stages[name]] if name in self.stages else self.groups[group]

    def deps(self, name: str) -> set[str]:
        """Return the paths that a stage depends on; raise UserError if one is not on this machine."""
        found = [dep for stage in self.items(name) for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        for dep in found:
            if isinstance(dep, DatasetDependency) or dep.protocol != "local":
                raise UserError(f"{self.told(name)}: cannot hash the dep {dep.def_path}; let a stage fetch it")
        return {self._named(dep.fs_path) for dep in found}

    def params(self, name: str) -> dict[str, Any]:
        """Return the params of a stage as they are now, by dotted name, which begins with the file if it is another."""
        found: dict[str, Any] = {}
        for dep in [dep for stage in self.items(name) for dep in stage.deps if isinstance(dep, ParamsDependency)]:
            with explained():
                values = flat(json.loads(json.dumps(dep.read_params(), default=str)))  # as `parse` takes them
            file = self._named(dep.fs_path)
            found |= {key if file == "params.yaml" else f"{file}:{key}": value for key, value in values.items()}
        return found

    def files(self, dep: str) -> Iterator[str]:
        """Yield the files of a dep in a fixed order, without those that .dvcignore hides or a linked folder holds."""
        yield from [dep] if os.path.isfile(dep) else []
        for folder, folders, files in self.ignore.walk(self._repo.fs, os.path.abspath(dep)):
            folders[:], name = sorted({*folders} - OWN), os.path.join(self._named(folder), "").removeprefix("./")
            paths = (name + file for file in sorted(files))
            yield from (path for path in paths if os.path.exists(path))  # Emacs leaves links to nowhere

    def hashed(self, dep: str) -> dict[str, str]:
        """Hash each file of a dep by content; a large dep by the names, sizes and times of its files."""
        size, found, seen = 0, dict[str, str](), hashlib.sha256()
        for file in self.files(dep):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                at = os.stat(file)
                size += max(at.st_size, BLOCK)
                seen.update(repr((file, at.st_size, at.st_mtime_ns)).encode())
                if size <= SMALL:
                    found[file] = sha256(Path(file))
        return found if size <= SMALL else {dep: seen.hexdigest()}

    def _named(self, path: str) -> str:
        return os.path.relpath(path) if f"{path}/".startswith(f"{self._repo.root_dir}/") else path


@contextlib.contextmanager
def explained(path: Path = STAGES) -> Iterator[None]:
    """Tell an error of DVC in one line."""
    try:
        yield
    except (DvcException, ImportError) as error:  # a remote's plugin may be missing
        reason = f"{error} {getattr(error, 'exc', '')}"  # what is not as DVC's schema says
        raise UserError(shown(f"{path}: {' '.join(reason.split())}")) from None
