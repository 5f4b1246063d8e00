"""Follow the imports of Python scripts, without running them and without DVC."""

import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from os.path import abspath, dirname, relpath
from pathlib import Path
from typing import NamedTuple

from exact_stages.console import UserError
from exact_stages.source import Import, Source, parsed


class Closure(NamedTuple):
    """All files that some scripts run by their imports, directly or not; paths are absolute.

    files: what is known of each. importers: the file that imports it, "" for a script.
    others: by the first name of the module, the imports that no file here answers, and where they stand.
    """

    files: dict[str, Source]
    importers: dict[str, str]
    others: dict[str, list[tuple[str, Import]]]

    def way(self, file: str) -> list[str]:
        """Return the files from a script to this one, each imported by the one before."""
        found = [file]
        while importer := self.importers.get(found[0]):
            found.insert(0, importer)
        return found


def follow(scripts: Iterable[str], roots: Sequence[str | Path], top: str | Path, runs: bool = False) -> Closure:
    """Return the closure of scripts under imports, those in functions, branches and `if TYPE_CHECKING` included.

    A package's `__getattr__` (PEP 562) counts for files that ask for a name which nothing else answers. A Python file
    below `top` that a text names, such as "python steps/first.py", counts as imported.

    Args:
        roots: the folders in which modules lie; where several have a module, all count.
        top: the folder of the project. Modules in it that only this Python's own path finds count, too.
        runs: leave out what no run reaches: imports for types, and files with the name of a standard module, but in the
            first folder.

    Raises:
        UserError: a file is not valid Python.
    """
    walk = _Walk([*dict.fromkeys(map(abspath, roots))], abspath(top), runs)
    walk.add(map(abspath, scripts), "")
    while walk.left:
        walk.read(walk.left.pop())
    return Closure(walk.files, walk.importers, walk.others)


def files_of(name: str, root: str) -> list[str]:
    """Return the files in a folder that the import of a dotted name runs: packages from the outermost on, a module."""
    parts = name.split(".")
    paths = ["/".join([root, *parts[:count]]) for count in range(1, len(parts) + 1)]
    return [each for path in paths for each in (f"{path}/__init__.py", f"{path}.py") if Path(each).is_file()]


class _Walk:
    def __init__(self, roots: list[str], top: str, runs: bool) -> None:
        self.roots, self.top, self.runs = roots, top, runs
        self.files: dict[str, Source] = {}
        self.importers: dict[str, str] = {}
        self.others: dict[str, list[tuple[str, Import]]] = {}
        self.left: list[str] = []
        self.asked: set[str] = set()  # packages of which a file wants what their __getattr__ answers
        self.found: dict[tuple[str, str], list[str]] = {}

    def add(self, files: Iterable[str], importer: str) -> None:
        for file in files:
            if file not in self.importers:
                self.importers[file] = importer
                self.left.append(file)

    def read(self, file: str) -> None:
        try:
            source = self.files[file] = parsed(Path(file).read_bytes())
        except (SyntaxError, ValueError) as error:  # ValueError: it has a NUL
            line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            raise UserError(f"{relpath(file)}: not valid Python: {line}") from None
        for each in source.imports:
            if not each.lazy or not file.endswith("/__init__.py") or file in self.asked:
                self.follow(file, each)
        for name in source.scripts:
            named = (abspath(f"{folder}/{name}") for folder in (self.top, *self.roots, dirname(file)))
            self.add((each for each in named if each.startswith(f"{self.top}/") and Path(each).is_file()), file)

    def follow(self, file: str, each: Import) -> None:
        """Add the files of an import, and those that its packages import to answer it."""
        roots, first = (
            [*map(str, Path(file).parents[each.level - 1 : each.level])] if each.level else self.roots,
            each.module.split(".")[0],
        )
        if self.runs and first in sys.stdlib_module_names:
            roots = roots[:1]
        if self.runs and each.typing:
            return
        here = sum(self.within(file, each, root) for root in roots)
        if not here and not each.level and not sum(self.within(file, each, root) for root in self.elsewhere(first)):
            self.others.setdefault(first, []).append((file, each))

    def within(self, file: str, each: Import, root: str) -> bool:
        """Add the files of an import that lie in a folder; tell whether there are any."""
        init = "/".join([root, *filter(None, each.module.split(".")), "__init__.py"])
        before = self.files_of(each.module, root) if each.module else [init] * Path(init).is_file()
        packages = {path for path in before if path.endswith("/__init__.py")}
        own = {init} & packages
        found, asked = {*before}, set[str]() if each.names else packages if each.binds else own
        for name in each.names or ():
            after = {*self.files_of(f"{each.module}.{name}".strip("."), root)} - {*before}
            if name == "*":  # __all__ may name modules, and what __getattr__ answers
                after = {str(e) for p in own for star in ("*.py", "*/__init__.py") for e in Path(p).parent.glob(star)}
            found |= after
            asked |= {path for path in after if path.endswith("/__init__.py")}
            asked |= {path for path in own if not after and name not in parsed(Path(path).read_bytes()).bound}
        self.add(sorted(found), file)
        for path in asked - self.asked:
            self.asked.add(path)
            if path in self.files:
                for lazy in self.files[path].imports:
                    self.follow(path, lazy)
        return bool(found)

    def files_of(self, name: str, root: str) -> list[str]:
        """Look once for what many files import."""
        if (root, name) not in self.found:
            self.found[root, name] = files_of(name, root)
        return self.found[root, name]

    def elsewhere(self, first: str) -> list[str]:
        """Return the folders of a module of the project that only this Python's path finds.

        So PYTHONPATH, and packages of the project that pip installed as editable, count.
        """
        try:
            spec = find_spec(first) if first not in sys.stdlib_module_names else None
        except (ImportError, ValueError):
            spec = None
        places = [*(spec.submodule_search_locations or [spec.origin or ""])] if spec else []
        parents = [Path(abspath(place)).parent for place in places]
        return [str(each) for each in parents if self.owns(each)]

    def owns(self, folder: Path) -> bool:
        return f"{folder}/".startswith(f"{self.top}/") and {"site-packages", "dist-packages"}.isdisjoint(folder.parts)
