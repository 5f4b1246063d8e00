"""The code of a stage: a line for each file that it imports, and for each locked package that these files import.

A stage depends on the file code/STAGE.txt with these lines, which the stage `code` writes.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from itertools import product
from os.path import abspath, realpath, relpath
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exact_stages.declared import Declared
from exact_stages.imports import Closure, follow
from exact_stages.provenance import LOCKED
from exact_stages.shell import commands

FOLDER = Path("code")
READS_CODE = {"__doc__", "getdoc", "getsource", "getsourcelines", "getcomments", "linecache", "jit"}
READS_CODE |= {"doctest", "model_json_schema", "json_schema", "dspy", "ply"}  # whose docstrings say what to do
PYTHON = re.compile(r"python|\.py\b|(^| )-m ")  # in a command that may run Python
KIT = Path(realpath(__file__)).parent
PLATFORMS = [  # on which the lines are equal
    {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system, "platform_system": name}
    for python, (system, name) in product(("3.11", "3.12", "3.13"), (("linux", "Linux"), ("darwin", "Darwin")))
]


class Code(NamedTuple):
    """What a stage runs.

    lines: the hash of each file, by its path relative to dvc.yaml, and the version of each package, by its name.
    closure: how the files are reached. faults: why other code may run, or none may, each in words.
    """

    lines: dict[str, str]
    closure: Closure
    faults: list[str]

    @property
    def text(self) -> str:
        """Return the text of code/STAGE.txt: files first."""
        files = hashes(self.lines)
        packages = sorted(self.lines.items() - files.items())
        return "".join([*(f"{files[name]}  {name}\n" for name in files), *map("{0[0]}=={0[1]}\n".format, packages)])


def path_of(stage: str) -> Path:
    """Return the file with the code of a stage; all items of a matrix have one."""
    return FOLDER / f"{stage.partition('@')[0]}.txt"


def lines_of(text: str) -> dict[str, str]:
    """Return hashes and versions by the text of a code/STAGE.txt."""
    found = (re.match(r"(?P<value>[0-9a-f]{64})  (?P<name>.*)|(?P<package>.+?)==(?P<version>.*)", line)
             for line in text.splitlines())  # fmt: skip
    return {each["name"] or each["package"]: each["value"] or each["version"] for each in found if each}


def hashes(lines: dict[str, str]) -> dict[str, str]:
    """Return the files alone, in order."""
    return {name: value for name, value in sorted(lines.items()) if len(value) == 64}


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the files and packages that differ."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def code_of(declared: Declared, stage: str) -> Code:
    """Follow the commands of a stage, of all its items, through Python files.

    Raises:
        UserError: a file is not valid Python.
    """
    items, top, unknown = declared.items(stage.partition("@")[0]), Path(relpath(declared.top)), list[str]()
    closure, seen = Closure({}, {}, {}), list[tuple[list[str], list[Path]]]()
    for command in [command for item in items for command in commands(item, top)]:
        unknown += [f"cannot follow `{command.text}`"] if not command.scripts and PYTHON.search(command.text) else []
        if (command.scripts, command.roots) not in seen:
            seen.append((command.scripts, command.roots))
            part = follow(command.scripts, command.roots, top)
            closure.files.update(part.files)
            closure.importers.update(part.importers)
            for name, places in part.others.items():
                closure.others[name] = closure.others.get(name, []) + places
    unknown += [] if closure.files or unknown else ["starts no Python"]
    outs = tuple(f"{out.fs_path}/" for item in items for out in item.outs)  # Python files that it writes, not code
    named = {file: relpath(file, top) for file in closure.files if not f"{file}/".startswith(outs)}
    for file, name in named.items():
        hidden = closure.files[file].hidden
        unknown += [f"{name}: line {line}: {word} may run code that no import shows" for line, word in hidden]
    deps = [dep for item in items for dep in item.deps if dep.protocol == "local"] if unknown else []
    if any(file.endswith(".py") for dep in deps for file in declared.files(dep.fs_path)):
        unknown.clear()  # such a dep is what it may run
    wanted, absent = list[str](), list[str]()
    for name, places in closure.others.items():
        own = [(file, each) for file, each in places if Path(realpath(file)).parent != KIT]
        if distributions := _distributions().get(name):
            wanted += distributions if own else []
        elif name != "__main__" and find_spec(name) is None:
            absent += [
                f"{relpath(file, top)}: line {each.line}: no module {name}, here or installed"
                for file, each in places
                if not (each.optional or each.typing)
            ]
    whole = any(not READS_CODE.isdisjoint(source.words) for source in closure.files.values())
    found = {name: closure.files[file].whole if whole else closure.files[file].plain for file, name in named.items()}
    return Code(found | _locked(wanted), closure, [*absent, *dict.fromkeys(unknown)])


def _locked(names: Iterable[str]) -> dict[str, str]:
    """Return the locked versions of packages, and of all that they require on each of the platforms.

    What is not locked has none, nor what only that requires.
    """
    locked = versions(LOCKED.read_text(encoding="utf-8")) if LOCKED.is_file() else {}
    found = dict[str, str]()
    left: set[tuple[str, frozenset[str]]] = {(canonicalize_name(name), frozenset()) for name in names}
    seen = {*left}
    while left:
        name, extras = left.pop()
        if name in locked:
            found[name] = locked[name]
            left |= {*_required(name, extras)} - seen
            seen |= left
    return found


def versions(constraints: str) -> dict[str, str]:
    """Return the locked version of each package by the text of a constraints.txt."""
    found = dict[str, str]()
    for name, version in re.findall(r"^([\w.-]+) *(?:==|@) *(.+?)(?: +#.*)?$", constraints, re.MULTILINE):
        found |= {(key := canonicalize_name(name)): f"{found.get(key, '')} {version}".strip()}  # a line for each marker
    return found


@cache
def _required(name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """Return what a package requires on each of the platforms, with its extras."""
    try:
        every = [*map(Requirement, distribution(name).requires or ())]
    except PackageNotFoundError:
        return []
    return [
        (canonicalize_name(each.name), frozenset(each.extras))
        for each in every
        if all(
            any(each.marker is None or each.marker.evaluate(platform | {"extra": extra}) for extra in extras or ("",))
            for platform in PLATFORMS
        )
    ]


@cache
def _distributions() -> dict[str, list[str]]:
    """Return the installed packages by the names that one imports; an editable one may name itself twice."""
    return {name: [*{*found}] for name, found in packages_distributions().items()}


def depends(declared: Declared, stage: str) -> bool:
    """Tell whether each item of a stage depends on the file with its code."""
    items = declared.items(stage.partition("@")[0])
    return all(abspath(path_of(stage)) in [dep.fs_path for dep in item.deps] for item in items)
