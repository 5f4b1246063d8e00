"""Audit a dvc.yaml that lists its code: compare its deps with what its Python scripts import, `exact_stages check`."""

import ast
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exact_stages.code import FOLDER, lines_of, path_of
from exact_stages.console import shown
from exact_stages.declared import Declared
from exact_stages.imports import Closure, follow
from exact_stages.shell import commands

MOST = 1 << 24  # bytes of a file in which the name of another is looked for
STARTS = {"subprocess", "system", "popen", "execvp", "execv", "execl", "exec"}  # what may start another Python
Found = tuple[list[str], list[str], list[str]]  # code to add to the deps, code to remove, commands that are unchecked


def main(path: Path) -> None:
    """Print what is wrong with a dvc.yaml, as lines to paste; exit with code 1 if a dep is wrong."""
    found = check(path)
    for stage, (missing, too_much, unchecked) in found.items():
        for title, paths in (("add to deps", missing), ("remove from deps", too_much)):
            print(end="".join([f"{stage}: {title}\n", *(f"      - {path}\n" for path in paths)] if paths else []))
        print(end="".join(f"{stage}: unchecked: {shown(command, 100)}\n" for command in unchecked))
    wrong = sum(bool(missing or too_much) for missing, too_much, _ in found.values())
    print(f"{len(found)} stages, {wrong} with wrong deps, {sum(bool(each[2]) for each in found.values())} unchecked")
    sys.exit(wrong > 0)


def check(path: Path) -> dict[str, Found]:
    """Compare the deps of each stage of a dvc.yaml with its scripts; modules lie beside it, in src, or here."""
    declared = Declared(path)
    files = cache(lambda dep: {os.path.abspath(file) for file in declared.files(dep)})
    deps = {dep.fs_path for stage in declared.stages.values() for dep in stage.deps if dep.protocol == "local"}
    packages = [dep for dep in deps if os.path.isdir(dep) and all(file.endswith(".py") for file in files(dep))]
    made = tuple(f"{out.fs_path}/" for stage in declared.stages.values() for out in stage.outs)
    return {
        name: _check(stages, path.parent, files, made, packages)
        for name, stages in declared.groups.items()
        if os.path.abspath(FOLDER) not in [out.fs_path for stage in stages for out in stage.outs]  # its command's own
    }


def _check(
    stages: Sequence[Any], top: Path, files: Callable[[str], set[str]], made: tuple[str, ...], packages: list[str]
) -> Found:
    missing, real, needless, unsure = set[str](), set[str](), set[str](), False
    unchecked = [] if stages else ["what an empty list would run"]
    for stage in stages:
        needed, text = set[str](), "\n".join([stage.cmd] if isinstance(stage.cmd, str) else stage.cmd)
        for command in commands(stage, top):
            closure = follow(command.scripts, command.roots, top, runs=True)
            needed |= {*map(os.path.abspath, closure.files)}
            unchecked += [] if command.scripts else [command.text]
            unsure = unsure or _unsure(closure)
        lacking = {file for file in needed if _has_code(file)}
        for dep in stage.deps:
            if hasattr(dep, "read_params") or dep.protocol != "local":
                continue
            if dep.fs_path == os.path.abspath(path_of(stage.name)) and os.path.isfile(dep.fs_path):
                text = f"{text}\n{dep.def_path}"  # it stands for the code that it lists
                lacking -= {os.path.abspath(top / file) for file in lines_of(Path(dep.fs_path).read_text())}
            held = files(dep.fs_path)
            lacking -= held
            other = any(not file.endswith(".py") for file in held or {dep.fs_path})
            named = os.path.normpath(dep.def_path) in text or f"{dep.fs_path}/".startswith(made)
            (real if other or named or held & needed else needless).add(str(dep.def_path))
        others = {file for dep in stage.deps for file in files(dep.fs_path) if not file.endswith(".py")}
        texts = [Path(file).read_bytes() for file in needed | others if needless and os.path.getsize(file) < MOST]
        real |= {dep for dep in needless if any(map(_names(dep).search, texts))}
        # A folder of code that is a dep of another stage stands for its files.
        best = (max((each for each in packages if file in files(each)), key=len, default=file) for file in lacking)
        missing |= {os.path.relpath(each, stage.wdir) for each in best}
    return sorted(missing), [] if unchecked or unsure else sorted(needless - real), [*dict.fromkeys(unchecked)]


def _has_code(file: str) -> bool:
    """Tell whether a file has more than comments and a docstring; most __init__.py have not."""
    tree = ast.parse(Path(file).read_bytes())
    return len(tree.body) > (ast.get_docstring(tree) is not None)


def _names(dep: str) -> re.Pattern[bytes]:
    """Return what finds a file or folder in a text, by its path or as a module, as a configuration or a pickle has."""
    path = dep.removesuffix(".py").rstrip("/")
    return re.compile(rf"\b({re.escape(path)}|{re.escape(path.removeprefix('src/').replace('/', '.'))})\b".encode())


def _unsure(closure: Closure) -> bool:
    """Tell whether the files may run others that no import shows."""
    ways = any(source.hidden or not STARTS.isdisjoint(source.words) for source in closure.files.values())
    return ways or any(name not in sys.stdlib_module_names and find_spec(name) is None for name in closure.others)
