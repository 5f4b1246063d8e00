"""Follow the imports of Python scripts, without running them and without DVC."""

import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from os import PathLike
from os.path import abspath, dirname, relpath
from pathlib import Path

from exact_stages.console import UserError
from exact_stages.source import Import, Source, parsed


def follow(scripts: Iterable[str], roots: Iterable[str | PathLike[str]], top: str | PathLike[str] = ".") -> "Closure":
    """Return all files that scripts run by their imports, without running them: `{*follow(["fit.py"], ["src"]).files}`.

    Imports in functions, branches and `if TYPE_CHECKING` are followed. A package's `__getattr__` (PEP 562) counts for
    files that ask for a name which nothing else answers. A Python file below `top` that a text names, such as
    "python steps/first.py", counts as imported.

    Args:
        roots: the folders in which modules lie, such as that of the script; where several have a module, all count.
        top: the folder of the project. Modules in it that only this Python's own path finds count, too.

    Raises:
        UserError: a file is not valid Python.
    """
    found = Closure(top)
    found.follow(scripts, roots)
    return found


def files_of(name: str, root: str) -> list[str]:
    """Return the files in a folder that the import of a dotted name runs: packages from the outermost on, a module."""
    parts = name.split(".")
    paths = ["/".join([root, *parts[:count]]) for count in range(1, len(parts) + 1)]
    return [each for path in paths for each in (f"{path}/__init__.py", f"{path}.py") if Path(each).is_file()]


class Closure:
    """All files that some scripts run by their imports, directly or not; paths are absolute.

    files: what is known of each. importers: the file that imports it, "" for a script.
    others: by the first name of the module, the imports that no file here answers, and where they stand.
    """

    def __init__(self, top: str | PathLike[str] = ".") -> None:
        self.files: dict[str, Source] = {}
        self.importers: dict[str, str] = {}
        self.others: dict[str, list[tuple[str, Import]]] = {}
        self._top = abspath(top)

    def way(self, file: str) -> list[str]:
        """Return the files from a script to this one, each imported by the one before."""
        found = [file]
        while importer := self.importers.get(found[0]):
            found.insert(0, importer)
        return found

    def follow(self, scripts: Iterable[str], roots: Iterable[str | PathLike[str]]) -> None:
        """Add what scripts run, see `follow`."""
        self._roots = [*dict.fromkeys(map(abspath, roots))]
        self._left, self._seen = list[str](), set[str]()
        self._asked = set[str]()  # packages of which a file wants what their __getattr__ answers
        self._files_of = cache(files_of)  # many files import the same
        self._add(map(abspath, scripts), "")
        while self._left:
            self._read(self._left.pop())

    def _add(self, files: Iterable[str], importer: str) -> None:
        for file in files:
            if file not in self._seen:
                self._seen.add(file)
                self._left.append(file)
                self.importers.setdefault(file, importer)

    def _read(self, file: str) -> None:
        try:
            source = self.files[file] = parsed(Path(file).read_bytes())
        except (SyntaxError, ValueError) as error:  # ValueError: it has a NUL
            line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            raise UserError(f"{relpath(file)}: not valid Python: {line}") from None
        for each in source.imports:
            if not each.lazy or not file.endswith("/__init__.py") or file in self._asked:
                self._import(file, each)
        for name in source.scripts:
            named = (abspath(f"{folder}/{name}") for folder in (self._top, *self._roots, dirname(file)))
            self._add((each for each in named if each.startswith(f"{self._top}/") and Path(each).is_file()), file)

    def _import(self, file: str, each: Import) -> None:
        """Add the files of an import, and those that its packages import to answer it."""
        first = each.module.split(".")[0]
        roots = [*map(str, Path(file).parents[each.level - 1 : each.level])] if each.level else self._roots
        here = sum(self._within(file, each, root) for root in roots)
        if not here and not each.level and not sum(self._within(file, each, root) for root in self._elsewhere(first)):
            self.others.setdefault(first, []).append((file, each))

    def _within(self, file: str, each: Import, root: str) -> bool:
        """Add the files of an import that lie in a folder; tell whether there are any."""
        init = "/".join([root, *filter(None, each.module.split(".")), "__init__.py"])
        before = self._files_of(each.module, root) if each.module else [init] * Path(init).is_file()
        packages = {path for path in before if path.endswith("/__init__.py")}
        own = {init} & packages
        found, asked = {*before}, set[str]() if each.names else packages if each.binds else own
        for name in each.names or ():
            after = {*self._files_of(f"{each.module}.{name}".strip("."), root)} - {*before}
            if name == "*":  # __all__ may name modules, and what __getattr__ answers
                after = {str(e) for p in own for star in ("*.py", "*/__init__.py") for e in Path(p).parent.glob(star)}
            found |= after
            asked |= {path for path in after if path.endswith("/__init__.py")}
            asked |= {path for path in own if not after and name not in parsed(Path(path).read_bytes()).bound}
        self._add(sorted(found), file)
        for path in asked - self._asked:
            self._asked.add(path)
            for lazy in self.files[path].imports if path in self.files else ():
                self._import(path, lazy)
        return bool(found)

    def _elsewhere(self, first: str) -> list[str]:
        """Return the folders of a module of the project that only this Python's path finds, as pip's editable ones."""
        spec = find_spec(first) if first not in {*sys.stdlib_module_names, "__main__"} else None
        places = [*(spec.submodule_search_locations or [spec.origin or ""])] if spec else []
        parents = [dirname(abspath(place)) for place in places]
        own = (each for each in parents if f"{each}/".startswith(f"{self._top}/"))
        return [each for each in own if {"site-packages", "dist-packages"}.isdisjoint(each.split("/"))]
