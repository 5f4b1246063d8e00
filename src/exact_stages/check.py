"""Compare the deps of the stages in dvc.yaml with what their Python scripts import: `python -m exact_stages check`.

No stage imports this file, and .dvcignore has it: an edit here makes no stage stale.
"""

import ast
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from exact_stages.console import UserError, shown
from exact_stages.declared import Declared
from exact_stages.files import write_whole

ENDS = {*";&|()\n"}  # of a command in a shell
OTHER_WAYS = re.compile(rb"\b(import_module|spec_from_file_location|__import__|runpy|subprocess|exec\()")
WRITTEN = "written"
Found = tuple[list[str], list[str], list[str]]  # code to add to the deps, code to remove, commands that are unchecked


def main(path: Path, writes: bool = False) -> None:
    """Print what is wrong with a dvc.yaml, as lines to paste, or write them; exit with code 1 if a dep stays wrong."""
    found = _found(path)
    states = _write(path, found) if writes else {}
    for stage, ((missing, too_much, unchecked), _) in found.items():
        for title, paths in (("add to deps", missing), ("remove from deps", too_much)):
            print(end="".join([f"{stage}: {title}\n", *(f"      - {path}\n" for path in paths)] if paths else []))
        print(end="".join(f"{stage}: unchecked: {shown(command, 100)}\n" for command in unchecked))
        print(end=f"{stage}: {states[stage]}\n" if stage in states else "")
    wrong = sum(bool(each[0][0] or each[0][1]) and states.get(stage) != WRITTEN for stage, each in found.items())
    print(f"{len(found)} stages, {wrong} with wrong deps, {sum(bool(each[0][2]) for each in found.values())} unchecked")
    sys.exit(wrong > 0)


def check(path: Path) -> dict[str, Found]:
    """Compare the deps of each stage of a dvc.yaml with its scripts; modules lie beside it, in src, or here."""
    return {stage: found for stage, (found, _) in _found(path).items()}


def _write(path: Path, found: dict[str, tuple[Found, bool]]) -> dict[str, str]:
    """Write and remove lines of deps, and change no other byte; return whether and why not, by stage."""
    text, states = path.read_bytes().decode(), dict[str, str]()
    anchors = any(getattr(event, "anchor", None) for event in YAML().parse(text))
    lines, whole = [[line] for line in text.split("\n")], YAML().load(text)["stages"]
    for stage, ((missing, too_much, unchecked), agree) in found.items():
        deps = whole[stage].get("do", whole[stage]).get("deps")
        block = bool(deps) and not deps.fa.flow_style()
        places = {str(dep): deps.lc.item(at) for at, dep in enumerate(deps)} if block else {}
        reasons = {
            "a command is unchecked": unchecked,
            "dvc.yaml has YAML anchors": anchors,
            "its items lack different files": not agree,
            "its deps are no list with a line for each": not block,
            "a template names a dep to remove": not {*too_much} <= places.keys(),
            "it would have no deps": not missing and {*too_much} >= places.keys(),
        }
        if missing or too_much:
            states[stage] = next((f"not written: {why}" for why, holds in reasons.items() if holds), WRITTEN)
        if states.get(stage) != WRITTEN:
            continue
        before, lines = lines, [[*group] for group in lines]
        heads = {dep: lines[line][0][:column] for dep, (line, column) in places.items()}
        end = "\r" * text.count("\r\n", 0, 1 + text.find("\n"))
        for dep in too_much:
            del lines[places[dep][0]][0]
        for file in missing:  # below the dep with which it shares most folders
            parts = file.split("/")
            near = max(reversed(heads), key=lambda dep: [*map(str.__eq__, dep.split("/"), parts)])
            quoted = file if re.fullmatch(r"[\w./][\w./-]*", file) else json.dumps(file)
            lines[places[near][0]].append(f"{heads[near]}{quoted}{end}")
        if _deps("\n".join(chain(*lines)), stage) != sorted([*({*places} - {*too_much}), *missing]):
            lines, states[stage] = before, "not written: a dep is not on a line of its own"
    if WRITTEN in states.values():
        write_whole(path, "\n".join(chain(*lines)).encode())
    return states


def _deps(text: str, stage: str) -> list[str]:
    """Return the deps of a stage in the text of a dvc.yaml; none if it is no YAML."""
    try:
        found = YAML().load(text)["stages"][stage]
    except YAMLError:
        return []
    return sorted(map(str, found.get("do", found).get("deps") or []))


def _found(path: Path) -> dict[str, tuple[Found, bool]]:
    """Return what is found of each stage, and whether all its items lack the same files."""
    declared = Declared(path)
    files = cache(lambda dep: {os.path.abspath(file) for file in declared.files(dep)})
    deps = {dep.fs_path for stage in declared.stages.values() for dep in stage.deps if dep.protocol == "local"}
    packages = [dep for dep in deps if os.path.isdir(dep) and all(file.endswith(".py") for file in files(dep))]
    made = tuple(f"{out.fs_path}/" for stage in declared.stages.values() for out in stage.outs)
    return {name: _check(stages, path.parent, files, made, packages) for name, stages in declared.groups.items()}


def _check(
    stages: Sequence[Any], top: Path, files: Callable[[str], set[str]], made: tuple[str, ...], packages: list[str]
) -> tuple[Found, bool]:
    missing, real, needless = list[set[str]](), set[str](), set[str]()
    unchecked, unsure = [] if stages else ["what an empty list would run"], False
    for stage in stages:
        folder, needed = Path(os.path.relpath(stage.wdir)), set[str]()
        roots = [each / below for each in (folder, top, Path()) for below in (".", "src")]
        text = "\n".join([stage.cmd] if isinstance(stage.cmd, str) else stage.cmd)
        for words, variable in _commands(text):
            variable = re.sub(r"\$(PYTHONPATH\b|\{PYTHONPATH\b[^}]*\})", "", variable)
            variable = re.sub(r"\$(PWD\b|\{PWD\})", ".", variable)
            paths = [*(folder / each for each in variable.split(":") if each), *roots]
            scripts, beside = _scripts(words, folder, paths)
            needed |= {os.path.abspath(file) for file in _imports(scripts, [*beside, *paths])}
            unknown = [f"PYTHONPATH={variable}"] if "$" in variable else []
            unchecked += [" ".join([*unknown, shlex.join(words)])] if unknown or not scripts else []
        lacking = {file for file in needed if _has_code(file)}
        for dep in stage.deps:
            if hasattr(dep, "read_params") or dep.protocol != "local":
                continue
            held = files(dep.fs_path)
            lacking -= held
            other = any(not file.endswith(".py") for file in held or {dep.fs_path})
            named = os.path.normpath(dep.def_path) in text or f"{dep.fs_path}/".startswith(made)
            (real if other or named or held & needed else needless).add(str(dep.def_path))
        # A folder of code that is a dep of another stage stands for its files.
        best = (max((each for each in packages if file in files(each)), key=len, default=file) for file in lacking)
        missing.append({os.path.relpath(each, folder) for each in best})
        unsure = unsure or any(map(_runs_others, needed))
    found = (
        sorted(set[str]().union(*missing)),
        [] if unchecked or unsure else sorted(needless - real),
        [*dict.fromkeys(unchecked)],
    )
    return found, all(each == missing[0] for each in missing)


def _has_code(file: str) -> bool:
    """Tell whether a file has more than comments and a docstring; most __init__.py have not."""
    tree = ast.parse(Path(file).read_bytes())
    return len(tree.body) > (ast.get_docstring(tree) is not None)


def _runs_others(file: str) -> bool:
    """Tell whether a file names a way to run code without an import; this package loads its own modules so."""
    own = Path(file).parent == Path(__file__).parent
    return not own and OTHER_WAYS.search(Path(file).read_bytes()) is not None


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


def _scripts(words: list[str], folder: Path, roots: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files that Python starts with, and the folders of scripts, where it looks first.

    The files are a script, or a module and its packages; none for other commands.
    """
    program, *rest = words
    while rest and re.fullmatch(r"-[^mc]", rest[0]):
        rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]
    match rest if re.fullmatch(r"(\S*/)?python[\d.]*", program) else []:
        case ["-m", module, *_]:
            files = _files(f"{module}.__main__", roots)
            return files if files and files[-1].stem in (module.split(".")[-1], "__main__") else [], []
        case [name, *more] if (script := folder / name).is_file():
            files, beside = _scripts(more, folder, roots) if more else ([], [])  # it may start another
            return [script, *files], [script.parent, *beside]
    return [], []


def _imports(scripts: Iterable[Path], roots: Sequence[Path]) -> set[Path]:
    """Return the scripts, and the files that they import, directly or not."""
    found, left = set[Path](), {*scripts}
    while left:
        found.add(path := left.pop())
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                level, package = (node.level, node.module or "") if isinstance(node, ast.ImportFrom) else (0, "")
                where = [*path.parents[level - 1 : level]] if level else roots
                names = {each.name for each in node.names}
                if "*" in names and (files := _files(package, where)):
                    names |= _listed(files[-1])
                left |= {file for name in names for file in _files(f"{package}.{name}", where)} - found
    return found


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise UserError(f"{path}: line {error.lineno}: {error.msg}") from None


def _listed(path: Path) -> set[str]:
    """Return the names in `__all__` of a module; if it computes the list, all names in its folder."""
    names = set[str]()
    for node in _parsed(path).body:
        if "'__all__'" in ast.dump(node):
            try:
                names |= {*ast.literal_eval(node.value)}  # type: ignore[attr-defined]
            except (AttributeError, ValueError):
                return {each.stem for each in path.parent.iterdir()}
    return names


def _files(name: str, roots: Sequence[Path]) -> list[Path]:
    """Return the files that the import of a dotted name runs, in the first of the folders that has it."""
    parts = name.strip(".").split(".")
    for root in roots:
        paths = [root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
        either = [each for path in paths for each in (path / "__init__.py", Path(f"{path}.py"))]
        if files := [each for each in either if each.is_file()]:
            return files
    return []
