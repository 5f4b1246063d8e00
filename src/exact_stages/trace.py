"""Compare what the Python processes of a stage open with dvc.yaml: `python -m exact_stages trace STAGE`."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any

from dvc.stage.exceptions import StageCmdFailedError
from dvc.stage.run import cmd_run

from exact_stages.code import lines_of, path_of
from exact_stages.console import UserError, shown
from exact_stages.declared import OWN, Declared

LEFT_OUT = {*OWN, ".dvc", ".git", ".dvcignore", "dvc.lock", "dvc.yaml", "dist-packages", "site-packages"}
Opened = tuple[set[str], set[str]]  # files that were read before the stage wrote them, and files that it wrote


def main(name: str, path: Path) -> None:
    """Run a stage, and print how what it opened differs from dvc.yaml; exit with code 1 if a file is not declared."""
    declared = Declared()
    if name not in declared.stages:
        raise UserError(f"{path}: no stage {shown(name)}; name one of {shown(', '.join(declared.stages))}")
    stage = declared.stages[name]
    print(f"{name}: runs, and replaces its outputs; dvc.lock stays as it is", flush=True)
    with tempfile.TemporaryDirectory() as folder, _replaced(stage.outs):
        try:
            cmd_run(stage, run_env=hooked(folder))
        except StageCmdFailedError:
            raise UserError(f"{name}: failed; its outputs are as before") from None
        seen = opened(folder)
        if stage.addressing not in seen:
            why = "its command must not replace PYTHONPATH, nor run python -I or -E"
            raise UserError(f"{name}: saw no Python; {why}; its outputs are as before")
    read, written = seen[stage.addressing]
    found = compare(declared, name, (read, written))
    for title, paths in zip(("declared, not read", "read, not declared", "written, not declared"), found, strict=True):
        print(end="".join([f"{name}: {title}\n", *(f"      - {path}\n" for path in paths)] if paths else []))
    print(f"{name}: {len(read)} files read, {len(written)} written; what native code or other programs open is unseen")
    sys.exit(any(found[1:]))


@contextlib.contextmanager
def _replaced(outs: Sequence[Any]) -> Iterator[None]:
    """Take outputs away, as DVC does before a run, but for those that persist; bring them back after an error."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        kept = {
            Path(out.fs_path): Path(folder, str(number))
            for number, out in enumerate(outs)
            if os.path.lexists(out.fs_path)
        }
        for path, copy in kept.items():
            os.rename(path, copy)
        for path in [Path(out.fs_path) for out in outs if out.persist and Path(out.fs_path) in kept]:
            shutil.copytree(kept[path], path) if kept[path].is_dir() else shutil.copy(kept[path], path)
        try:
            yield
        except BaseException:
            for path, copy in kept.items():
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                os.rename(copy, path)
            raise


def hooked(folder: str) -> dict[str, str]:
    """Return variables by which each Python process of a stage notes in a folder what it opens."""
    shutil.copy(Path(__file__).with_name("hook.py"), Path(folder, "sitecustomize.py"))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}


def opened(folder: str) -> dict[str, Opened]:
    """Return what each stage opened, by absolute path; the source of a file that Python has compiled before."""
    found: dict[str, Opened] = defaultdict(lambda: (set(), set()))
    log = Path(folder, "opened")
    for line in os.fsdecode(log.read_bytes()).split("\0")[:-1] if log.exists() else ():
        stage, kind, path = line.split("\t", 2)
        read, written = found[stage]
        if kind == "writes":
            written.add(path)
        elif path not in written:
            with contextlib.suppress(ValueError):  # it is not what Python has compiled
                path = source_from_cache(path)
            read.add(path)
    return found


def compare(declared: Declared, name: str, seen: Opened) -> tuple[list[str], list[str], list[str]]:
    """Return what a stage declares and did not read, read and does not declare, and wrote and does not declare."""
    stage, (read, written) = declared.stages[name], seen
    deps = {dep.fs_path: {os.path.abspath(file) for file in declared.files(dep.fs_path)} for dep in stage.deps}
    own = Path(stage.path).absolute().parent / path_of(name)
    for file in lines_of(own.read_text(encoding="utf-8")) if own.is_file() else ():
        deps.get(str(own), set()).add(os.path.join(own.parents[1], file))
    outs = tuple(os.path.join(out.fs_path, "") for out in stage.outs)
    top = next((each for each in Path(stage.path).parents if (each / ".git").exists()), Path(stage.path).parent)

    def counts(file: str) -> bool:
        path = Path(file)
        ours = path.is_relative_to(top) and LEFT_OUT.isdisjoint(path.relative_to(top).parts)
        return ours and path.is_file() and not os.path.join(file, "").startswith(outs)

    def shown(files: Any) -> list[str]:
        return sorted(os.path.relpath(file, stage.wdir) for file in files)

    undeclared = {file for file in read.difference(*deps.values()) if counts(file) and os.path.getsize(file)}
    return (
        shown(dep for dep, files in deps.items() if read.isdisjoint(files)),
        shown(undeclared),
        shown(file for file in written if counts(file)),
    )
