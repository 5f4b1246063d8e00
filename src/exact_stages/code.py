"""The code of a stage: a line for each file that it imports, and for each locked package that these files import.

A stage depends on the file code/STAGE.txt with these lines, which the stage `code` writes.
"""

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from itertools import product
from os.path import abspath, dirname, relpath
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exact_stages.declared import Declared
from exact_stages.imports import Closure
from exact_stages.provenance import LOCKED, PROJECT
from exact_stages.shell import commands

FOLDER = Path("code")
READS_CODE = {"__doc__", "getdoc", "getsource", "getsourcelines", "getcomments", "linecache", "jit"}
READS_CODE |= {"doctest", "model_json_schema", "json_schema", "dspy", "ply"}  # whose docstrings say what to do
PYTHON = re.compile(r"python|\.py\b|(^| )-m ")  # in a command that may run Python
KIT, PACKAGE = "exact_stages", "exact-stages"
PLATFORMS = [  # on which the lines are equal
    {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system, "platform_system": name}
    for python, (system, name) in product(("3.11", "3.12", "3.13"), (("linux", "Linux"), ("darwin", "Darwin")))
]
Needed = tuple[str, frozenset[str]]  # a package, and its extras


class Code(NamedTuple):
    """What a stage runs.

    lines: the hash of each file, by its path relative to dvc.yaml, and the version of each package, by its name.
    closure: how the files are reached. absent: modules that are not there. hidden: why other code may run, or none may,
    each in words; covered: a dep is a Python file, so it is what the hidden may be.
    """

    lines: dict[str, str]
    closure: Closure
    absent: list[str]
    hidden: list[str]
    covered: bool

    @property
    def faults(self) -> list[str]:
        """Return why the lines may not be all that the stage runs."""
        return self.absent + (self.hidden if not self.covered else [])

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
    found = re.findall(r"^(?:([0-9a-f]{64})  (.*)|([\w.-]+)==(.*))$", text, re.MULTILINE)
    return {name or package: value or version for value, name, package, version in found}


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
    items, hidden, walked = declared.items(stage.partition("@")[0]), list[str](), []
    closure = Closure()
    for command in [command for item in items for command in commands(item)]:
        hidden += [f"cannot follow `{command.text}`"] if not command.scripts and PYTHON.search(command.text) else []
        if (command.scripts, command.roots) not in walked:
            walked.append((command.scripts, command.roots))
            closure.follow(command.scripts, command.roots)
    hidden += [] if closure.files or hidden else ["starts no Python"]
    outs = tuple(f"{out.fs_path}/" for item in items for out in item.outs)  # Python files that it writes, not code
    named = {file: relpath(file) for file in closure.files if not f"{file}/".startswith(outs)}
    for file, name in named.items():
        words = closure.files[file].hidden
        hidden += [f"{name}: line {line}: {word} may run code that no import shows" for line, word in words]
    deps = [dep for item in items for dep in item.deps if dep.protocol == "local"] if hidden else []
    covered = any(file.endswith(".py") for dep in deps for file in declared.files(dep.fs_path))
    needed, absent, found = list[Needed](), list[str](), dict[str, str]()
    for name, places in closure.others.items():
        if name == KIT and (kit := _installed(PACKAGE)):
            found[PACKAGE] = kit.version
        elif distributions := _distributions().get(name):
            own = any(Path(file).parent.name != KIT for file, _ in places)  # what the kit imports counts by its files
            needed += [(canonicalize_name(each), frozenset()) for each in distributions if own]
        elif name != "__main__" and find_spec(name) is None:
            told = [f"{relpath(file)}: line {each.line}" for file, each in places if not each.optional]
            absent += [f"{each}: no module {name}, here or installed" for each in told]
    whole = any(not READS_CODE.isdisjoint(source.words) for source in closure.files.values())
    found |= {name: closure.files[file].whole if whole else closure.files[file].plain for file, name in named.items()}
    return Code(found | _locked(needed), closure, absent, [*dict.fromkeys(hidden)], covered)


def packages() -> dict[str, str]:
    """Return the installed versions of what pyproject.toml requires, directly or not, and constraints.txt locks."""
    needed = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = sorted(_locked(_chosen(needed, frozenset(), here=True), here=True))
    return {name: found.version for name in names if (found := _installed(name))}


def _locked(needed: Iterable[Needed], here: bool = False) -> dict[str, str]:
    """Return the locked versions of packages, and of all that they require, see `_chosen`.

    What is not locked has none, nor what only that requires; but for this machine, all that is installed is followed.
    """
    locked = versions(LOCKED.read_text(encoding="utf-8")) if LOCKED.is_file() else {}
    found, left = dict[str, str](), {*needed}
    seen = {*left}
    while left:
        name, extras = left.pop()
        found |= {name: locked[name]} if name in locked else {}
        left |= {*_required(name, extras, here)} - seen if name in locked or here else set()
        seen |= left
    return found


def versions(constraints: str) -> dict[str, str]:
    """Return the locked version of each package by the text of a constraints.txt."""
    found = dict[str, str]()
    for name, version in re.findall(r"^([\w.-]+) *(?:==|@) *(.+?)(?: +#.*)?$", constraints, re.MULTILINE):
        found |= {(key := canonicalize_name(name)): f"{found.get(key, '')} {version}".strip()}  # a line for each marker
    return found


@cache
def _required(name: str, extras: frozenset[str], here: bool) -> list[Needed]:
    """Return what a package requires with its extras, if it is installed."""
    found = _installed(name)
    return _chosen((found and found.requires) or (), extras, here)


def _chosen(requires: Iterable[str], extras: frozenset[str], here: bool) -> list[Needed]:
    """Return the requirements that hold on this machine, if that is wanted, or else on each of the platforms."""
    return [
        (canonicalize_name(each.name), frozenset(each.extras))
        for each in map(Requirement, requires)
        if all(
            any(each.marker is None or each.marker.evaluate(platform | {"extra": extra}) for extra in extras or ("",))
            for platform in ([{}] if here else PLATFORMS)
        )
    ]


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


@cache
def _distributions() -> dict[str, list[str]]:
    """Return the installed packages by the names that one imports; an editable one may name itself twice."""
    return {name: [*{*found}] for name, found in packages_distributions().items()}


def which_counts(codes: Iterable[Code]) -> str:
    """Say which kit counts, if a copy lies here and another one is installed."""
    copies = {dirname(file) for code in codes for file in code.lines if file.endswith(f"{KIT}/__init__.py")}
    if not copies or not (found := _installed(PACKAGE)) or not Path(str(found.locate_file(KIT))).is_dir():
        return ""
    return f"the files in {', '.join(copies)} count, and not {PACKAGE} {found.version}, which is installed"


def depends(declared: Declared, stage: str) -> bool:
    """Tell whether each item of a stage depends on the file with its code."""
    items = declared.items(stage.partition("@")[0])
    return all(abspath(path_of(stage)) in [dep.fs_path for dep in item.deps] for item in items)
