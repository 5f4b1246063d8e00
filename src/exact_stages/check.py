"""Compare the deps of the stages in dvc.yaml with what their Python scripts import: `python -m exact_stages check`.

No stage imports this file, and .dvcignore has it: an edit here makes no stage stale.
"""

import ast
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from exact_stages.console import UserError, shown
from exact_stages.params import read_yaml

ENDS = ";&|()\n"  # of a command in a shell


class Found(NamedTuple):
    """What is wrong with a stage: code to add to its deps, code to remove from them, commands that say nothing."""

    missing: list[str]
    too_much: list[str]
    unchecked: list[str]


def main() -> None:
    """Print what is wrong with a dvc.yaml, as lines to paste; exit with code 1 if a dep is."""
    if sys.argv[1:2] != ["check"] or len(sys.argv) > 3:
        raise UserError("usage: python -m exact_stages check [dvc.yaml]")
    found = check(Path(*sys.argv[2:] or ["dvc.yaml"]))
    for stage, (missing, too_much, unchecked) in found.items():
        for title, paths in (("add to the deps", missing), ("remove from the deps", too_much)):
            if paths:
                print("\n".join([f"{stage}: {title}", *(f"      - {path}" for path in paths)]))
        for command in unchecked:
            print(f"{stage}: unchecked: {shown(command, 100)}")
    wrong = sum(bool(each.missing or each.too_much) for each in found.values())
    unknown = sum(bool(each.unchecked) for each in found.values())
    print(f"{len(found)} stages: {wrong} with wrong deps, {unknown} with unchecked commands")
    sys.exit(wrong > 0)


def check(path: Path) -> dict[str, Found]:
    """Compare the deps of each stage of a dvc.yaml with its scripts; modules lie beside it, in src, or here.

    Raises:
        UserError: dvc.yaml, a script or what it imports cannot be read.
    """
    whole = read_yaml(path)
    if not isinstance(whole, dict):
        raise UserError(f"{path}: no stages")
    values = _variables(path.parent, whole.get("vars") or [])
    return {name: _check(stage.get("do", stage), path.parent, values) for name, stage in whole["stages"].items()}


def _check(stage: dict[str, Any], top: Path, values: dict[str, Any]) -> Found:
    folder = top / _filled(stage.get("wdir", "."), values)
    roots = [root / below for root in (folder, top, Path()) for below in (".", "src")]
    lines = [stage["cmd"]] if isinstance(stage["cmd"], str) else stage["cmd"]
    started, beside, unchecked = list[Path](), list[Path](), list[str]()
    for words in _commands("\n".join(_filled(line, values) for line in lines)):
        scripts = _scripts(words, folder, roots)
        started += scripts
        beside += [each.parent for each in scripts if "-m" not in words]  # where Python looks first
        unchecked += [] if scripts else [shlex.join(words)]
    imported = _imports(started, [*beside, *roots])
    files = {os.path.relpath(file, folder): file.stat().st_size for file in imported}
    deps = [os.path.normpath(_filled(dep, values)) for dep in stage.get("deps") or [] if isinstance(dep, str)]
    covered = {dep: [file for file in files if f"{file}/".startswith(f"{dep}/")] for dep in deps}
    missing = {file for file, size in files.items() if size} - {file for each in covered.values() for file in each}
    too_much = [dep for dep in deps if not covered[dep] and _is_code(folder / dep)]
    return Found(sorted(missing), [] if unchecked else too_much, unchecked)


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" or next(path.rglob("*.py"), None) is not None


def _variables(folder: Path, given: Iterable[str | dict[str, Any]]) -> dict[str, Any]:
    """Return what `${...}` in dvc.yaml may name: params.yaml, and files and values of its section `vars`."""
    found: dict[str, Any] = {}
    for each in ("params.yaml", *given):
        file = folder / str(each).partition(":")[0]
        found |= each if isinstance(each, dict) else (read_yaml(file) or {}) if file.is_file() else {}
    return found


def _filled(text: str, values: dict[str, Any]) -> str:
    """Fill in variables of dvc.yaml, and the defaults of those that the shell fills in; leave others as they are."""

    def value(match: re.Match[str]) -> str:
        found: Any = values
        for key in match[1].split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return match[0] if found is None or isinstance(found, dict | list) else str(found)

    return re.sub(r"\\?\$\{\w+:-([^}]*)\}", r"\1", re.sub(r"(?<!\\)\$\{([\w.-]+)\}", value, text))


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell, from the program on: without exec, env, variables and sh -c."""
    lexer = shlex.shlex(re.sub(r"\\\n|\d?>&\d|&(?=>)", " ", text), posix=True, punctuation_chars=ENDS)
    lexer.whitespace, lexer.whitespace_split = " \t\r", True
    for ends, group in groupby(lexer, lambda word: {*word} <= {*ENDS}):
        words = [] if ends else [*group]
        while words:
            match words:
                case ["exec" | "env" | "time" | "nohup" | "-i", *rest] | ["-u", _, *rest]:
                    words = rest
                case ["poetry" | "uv" | "pipenv" | "pdm" | "hatch", "run", *rest]:
                    words = rest
                case [assigned, *rest] if re.match(r"\w+=", assigned):
                    words = rest
                case ["sh" | "bash" | "/bin/sh" | "/bin/bash", "-c", inner, *_]:
                    yield from _commands(inner)
                    break
                case _:
                    yield words
                    break


def _scripts(words: list[str], folder: Path, roots: Sequence[Path]) -> list[Path]:
    """Return the files that Python starts with: a script, or a module and its packages; none for other commands."""
    program, *rest = words
    if not re.fullmatch(r"(\S*/)?python[\d.]*", program):
        return []
    while rest and re.fullmatch(r"-[^mc]\w*", rest[0]):
        rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]
    match rest:
        case ["-m", module, *_]:
            files = _files(f"{module}.__main__", roots)
            return files if files and files[-1].stem in (module.rpartition(".")[2], "__main__") else []
        case [name, *_] if (folder / name).is_file():
            return [folder / name]
    return []


def _imports(scripts: Iterable[Path], roots: Sequence[Path]) -> set[Path]:
    """Return the scripts, and the files that they import, directly or not."""
    found, left = set[Path](), {*scripts}
    while left:
        found.add(path := left.pop())
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError as error:
            raise UserError(f"{path}: line {error.lineno}: not valid Python {sys.version_info.major}") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names, where = [each.name for each in node.names], roots
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module or ''}.{each.name}".lstrip(".") for each in node.names]
                where = [path.parents[node.level - 1]] if node.level else roots
            else:
                continue
            left |= {file for name in names for file in _files(name, where)} - found
    return found


def _files(name: str, roots: Sequence[Path]) -> list[Path]:
    """Return the files that the import of a dotted name runs, in the first of the folders that has it."""
    for root in roots:
        found, where = list[Path](), root
        for part in name.split("."):
            where /= part
            if (package := where / "__init__.py").is_file():
                found.append(package)
            elif (module := where.with_name(f"{part}.py")).is_file():
                found.append(module)
                break
            elif not where.is_dir():
                break
        if found:
            return found
    return []
