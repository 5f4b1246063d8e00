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
from typing import Any

from dvc.utils.flatten import flatten

from exact_stages.console import UserError, shown
from exact_stages.params import read_yaml

ENDS = {*";&|()\n"}  # of a command in a shell
Found = tuple[list[str], list[str], list[str]]  # code to add to the deps, code to remove, commands that are unchecked


def main() -> None:
    """Print what is wrong with a dvc.yaml, as lines to paste; exit with code 1 if a dep is."""
    if sys.argv[1:2] != ["check"] or len(sys.argv) > 3:
        raise UserError("usage: python -m exact_stages check [dvc.yaml]")
    found = check(Path(*sys.argv[2:] or ["dvc.yaml"]))
    for stage, (missing, too_much, unchecked) in found.items():
        for title, paths in (("add to deps", missing), ("remove from deps", too_much)):
            print(end="".join([f"{stage}: {title}\n", *(f"      - {path}\n" for path in paths)] if paths else []))
        print(end="".join(f"{stage}: unchecked: {shown(command, 100)}\n" for command in unchecked))
    wrong = sum(bool(missing or too_much) for missing, too_much, _ in found.values())
    print(f"{len(found)} stages, {wrong} with wrong deps, {sum(bool(each[2]) for each in found.values())} unchecked")
    sys.exit(wrong > 0)


def check(path: Path) -> dict[str, Found]:
    """Compare the deps of each stage of a dvc.yaml with its scripts; modules lie beside it, in src, or here.

    Raises:
        UserError: dvc.yaml, a script or what it imports cannot be read.
    """
    whole, params = read_yaml(path), path.with_name("params.yaml")
    if not isinstance(whole, dict) or not isinstance(whole.get("stages"), dict):
        raise UserError(f"{path}: has no stages")
    values = (read_yaml(params) or {}) if params.is_file() else {}
    for each in whole.get("vars", ()):
        values |= each if isinstance(each, dict) else {}
    return {name: _check(each.get("do", each), path.parent, flatten(values)) for name, each in whole["stages"].items()}


def _check(stage: dict[str, Any], top: Path, values: dict[str, Any]) -> Found:
    def filled(text: str) -> str:  # with the variables of dvc.yaml, and the defaults of the shell's
        text = re.sub(r"(?<!\\)\$\{([\w.-]+)\}", lambda found: str(values.get(found[1], found[0])), text)
        return re.sub(r"\\?\$\{\w+:-([^}]*)\}", r"\1", text)

    folder = top / stage.get("wdir", ".")
    roots = [each / below for each in (folder, top, Path()) for below in (".", "src")]
    started, unchecked = list[Path](), list[str]()
    lines = stage.get("cmd", ())
    for words in _commands(filled(lines if isinstance(lines, str) else "\n".join(lines))):
        files = _scripts(words, folder, roots)
        if "-m" not in words:  # Python looks for modules beside the script
            roots[:0] = [file.parent for file in files]
        started += files
        unchecked += [] if files else [shlex.join(words)]
    imported = {os.path.relpath(file, folder): file for file in _imports(started, roots)}
    deps = [os.path.normpath(filled(dep)) for dep in stage.get("deps", ()) if isinstance(dep, str)]
    covered = {dep: {each for each in imported if f"{each}/".startswith(f"{dep}/")} for dep in deps}
    missing = imported.keys() - {each for files in covered.values() for each in files}
    code = [dep for dep in deps if dep.endswith(".py") or next((folder / dep).rglob("*.py"), None)]
    needed = sorted(each for each in missing if imported[each].stat().st_size)  # not an empty __init__.py
    return needed, [dep for dep in code if not covered[dep] and not unchecked], unchecked


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a shell's text, without what only starts it: exec, env, variables, sh -c."""
    plain = re.sub(r"\\\n|\d?>&\d|&(?=>)|(?<!\S)#.*", " ", text)
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="".join(ENDS))
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    try:
        found = [*lexer]
    except ValueError:  # an open quotation
        found = [text]
    for ends, group in groupby(found, lambda word: {*word} <= ENDS):
        words = [] if ends else [*group]
        while words:
            match words:
                case ["exec" | "env", *rest] | ["-u", _, *rest] | ["poetry" | "uv" | "pipenv", "run", *rest]:
                    words = rest
                case [assigned, *rest] if re.match(r"\w+=", assigned):
                    words = rest
                case ["sh" | "bash", "-c", inner, *_]:
                    yield from _commands(inner)
                    break
                case _:
                    yield words
                    break


def _scripts(words: list[str], folder: Path, roots: Sequence[Path]) -> list[Path]:
    """Return the files that Python starts with: a script, or a module and its packages; none for other commands."""
    program, *rest = words
    while rest and re.fullmatch(r"-[^mc]", rest[0]):
        rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]
    match rest if re.fullmatch(r"(\S*/)?python[\d.]*", program) else []:
        case ["-m", module, *_]:
            files = _files(f"{module}.__main__", roots)
            return files if files and files[-1].stem in (module.split(".")[-1], "__main__") else []
        case [name, *more] if (folder / name).is_file():
            return [folder / name, *(_scripts(more, folder, roots) if more else [])]  # it may start another
    return []


def _imports(scripts: Iterable[Path], roots: Sequence[Path]) -> set[Path]:
    """Return the scripts, and the files that they import, directly or not."""
    found, left = set[Path](), {*scripts}
    while left:
        found.add(path := left.pop())
        try:
            nodes = [*ast.walk(ast.parse(path.read_bytes()))]
        except SyntaxError as error:
            raise UserError(f"{path}: line {error.lineno}: {error.msg}") from None
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                level, package = (node.level, node.module or "") if isinstance(node, ast.ImportFrom) else (0, "")
                where = [path.parents[level - 1]] if level else roots
                left |= {file for each in node.names for file in _files(f"{package}.{each.name}", where)} - found
    return found


def _files(name: str, roots: Sequence[Path]) -> list[Path]:
    """Return the files that the import of a dotted name runs, in the first of the folders that has it."""
    parts = name.strip(".").split(".")
    for root in roots:
        paths = [root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
        either = [each for path in paths for each in (path / "__init__.py", path.with_suffix(".py"))]
        if files := [each for each in either if each.is_file()]:
            return files
    return []
