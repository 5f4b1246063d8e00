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

from exact_stages.console import UserError, shown
from exact_stages.declared import Declared

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
    """Compare the deps of each stage of a dvc.yaml with its scripts; modules lie beside it, in src, or here."""
    declared = Declared(path)
    return {group: _check(stages, path.parent, declared) for group, stages in declared.groups.items()}


def _check(stages: Sequence[Any], top: Path, declared: Declared) -> Found:
    made = tuple(f"{out.fs_path}/" for stage in declared.stages.values() for out in stage.outs)
    missing, real, needless = set[str](), set[str](), set[str]()
    unchecked = [] if stages else ["what an empty list would run"]
    for stage in stages:
        folder, needed = Path(os.path.relpath(stage.wdir)), set[str]()
        roots = [each / below for each in (folder, top, Path()) for below in (".", "src")]
        text = "\n".join([stage.cmd] if isinstance(stage.cmd, str) else stage.cmd)
        for words, variable in _commands(text):
            paths = [*(folder / each for each in variable.split(":") if each), *roots]
            scripts = _scripts(words, folder, paths)
            beside = [] if "-m" in words else [script.parent for script in scripts]  # where Python looks first
            needed |= {os.path.abspath(file) for file in _imports(scripts, [*beside, *paths])}
            unchecked += [] if scripts else [shlex.join(words)]
        lacking = {file for file in needed if _has_code(file)}
        for dep in stage.deps:
            if hasattr(dep, "read_params") or dep.protocol != "local":
                continue
            files = {os.path.abspath(file) for file in declared.files(dep.fs_path)}
            lacking -= files
            other = any(not file.endswith(".py") for file in files or {dep.fs_path})
            named = os.path.normpath(dep.def_path) in text or f"{dep.fs_path}/".startswith(made)
            (real if other or named or files & needed else needless).add(str(dep.def_path))
        missing |= {os.path.relpath(file, folder) for file in lacking}
    return sorted(missing), [] if unchecked else sorted(needless - real), [*dict.fromkeys(unchecked)]


def _has_code(file: str) -> bool:
    """Tell whether a file has more than comments and a docstring; most __init__.py have not."""
    tree = ast.parse(Path(file).read_bytes())
    return len(tree.body) > (ast.get_docstring(tree) is not None)


def _commands(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield each command in a shell's text and its PYTHONPATH, without what starts it: exec, env, variables, sh -c."""
    plain = re.sub(r"\\\n|\d?>&\d|&(?=>)|(?<!\S)#.*", " ", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))  # with defaults
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="".join(ENDS))
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    try:
        found = [*lexer]
    except ValueError:  # an open quotation
        found = [text]
    for ends, group in groupby(found, lambda word: {*word} <= ENDS):
        words, variable = [] if ends else [*group], ""
        while words:
            match words:
                case ["exec" | "env", *rest] | ["-u", _, *rest] | ["poetry" | "uv" | "pipenv", "run", *rest]:
                    words = rest
                case [word, *rest] if assigned := re.match(r"(\w+)=(.*)", word, re.DOTALL):
                    words, variable = rest, assigned[2] if assigned[1] == "PYTHONPATH" else variable
                case ["sh" | "bash", "-c", inner, *_]:
                    yield from ((command, own or variable) for command, own in _commands(inner))
                    break
                case _:
                    yield words, variable
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
                names = {each.name for each in node.names}
                if "*" in names and (files := _files(package, where)):
                    listed = re.findall(rb"__all__[^=\n]*=\s*[\[(]([^])]*)", files[-1].read_bytes())
                    names |= {*re.findall(r"\w+", b" ".join(listed).decode())}
                left |= {file for name in names for file in _files(f"{package}.{name}", where)} - found
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
