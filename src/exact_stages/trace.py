"""Compare what a stage reads and writes with what dvc.yaml declares: `python -m exact_stages trace STAGE`."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from os.path import abspath, relpath
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.stage.exceptions import StageCmdFailedError
from dvc.stage.run import cmd_run

from exact_stages.code import FOLDER, PACKAGE, lines_of, path_of
from exact_stages.console import UserError
from exact_stages.declared import OWN, STAGES, Declared
from exact_stages.twice import cloned, environment, git, stage_of

LEFT_OUT = {*OWN, ".dvc", ".dvcignore", ".git", ".gitignore", "dvc.lock", "dvc.yaml"}
OF_KIT = {str(FOLDER), "constraints.txt", "params.yaml", "pyproject.toml"}  # which a `Stage` reads for itself


def main(name: str) -> None:
    """Run a stage in a clone, and print how what it opens differs from dvc.yaml; exit with code 1 for undeclared files.

    A file that is read gets a new time of access, in any language, if its old one is before the last change.
    """
    with TemporaryDirectory(prefix="trace-") as folder:
        here = cloned(name, Path(folder, "clone"), whole=True)
        with contextlib.chdir(here):
            variables, top = environment(here), git("rev-parse", "--show-toplevel")
            stage = stage_of(declared := Declared(), name)
            for out in stage.outs:
                _ = out.persist or out.remove()
            seen = set[int]()
            for file in [*_files(top)]:
                at, disk = os.stat(file), os.statvfs(file).f_flag & (os.ST_NOATIME | os.ST_RDONLY)
                other = at.st_ino in seen or at.st_nlink > 1 or at.st_uid != os.geteuid() or disk  # no times of its own
                if other and not os.path.realpath(file).startswith(f"{top}/"):  # but in DVC's cache
                    shutil.copy2(file, f"{file}.copy")
                    os.replace(f"{file}.copy", file)
                seen.add(at.st_ino)
            before = {file: os.stat(file).st_mtime_ns for file in _files(top)}
            for file, changed in {**before, str(STAGES): 1}.items():
                os.utime(file, ns=(0, changed))
            if STAGES.read_bytes() and not os.stat(STAGES).st_atime_ns:
                raise UserError(f"{folder}: keeps no times of access; set TMPDIR to a folder that is not noatime")
            try:
                cmd_run(stage, run_env=variables)
            except StageCmdFailedError as error:
                raise UserError(f"{name}: failed in a clone, which has what git lists, and the deps: {error}") from None
            after = {file: os.stat(file) for file in _files(top)}
            written = {file for file, at in after.items() if at.st_mtime_ns != before.get(file)}
            read = {file for file, at in after.items() if at.st_atime_ns} - written
            deps = {dep.fs_path: {*map(abspath, declared.files(dep.fs_path))} for dep in stage.deps}
            own = path_of(name)
            lines = lines_of(own.read_text(encoding="utf-8")) if abspath(own) in deps and own.is_file() else {}
            deps.get(abspath(own), set()).update(map(abspath, lines))
            kit = any(file.endswith("exact_stages/stage.py") for file in lines) or PACKAGE in lines
            outs = tuple(f"{out.fs_path}/" for out in stage.outs)
            full = [dep for dep, files in deps.items() if any(map(os.path.getsize, files & before.keys()))]
            found = {
                "declared, not read": [dep for dep in full if read.isdisjoint(deps[dep])],
                "read, not declared": [
                    file
                    for file in read.difference(*deps.values())
                    if os.path.getsize(file) and not (kit and relpath(file).split("/")[0] in OF_KIT)
                ],
                "written, not declared": [file for file in written if not f"{file}/".startswith(outs)],
            }
            for title, paths in found.items():
                print(end=_listed(f"{name}: {title}", (relpath(path, stage.wdir) for path in paths)))
    print(f"{name}: {len(read)} files read, {len(written)} written")
    sys.exit(bool(found["read, not declared"] or found["written, not declared"]))


def _files(top: str) -> Iterator[str]:
    for folder, folders, files in os.walk(top):
        folders[:] = {*folders} - LEFT_OUT
        yield from (path for file in files if file not in LEFT_OUT and os.path.isfile(path := f"{folder}/{file}"))


def _listed(title: str, paths: Iterable[str]) -> str:
    lines = [f"      - {path}\n" for path in sorted(paths)]
    return "".join([f"{title}\n", *lines] if lines else [])
