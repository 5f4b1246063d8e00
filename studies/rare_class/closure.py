"""Find the files that importing a module of the project runs."""

import ast
from pathlib import Path


def module_file(module: str, root: Path) -> Path | None:
    """The file of one of the project's own modules, None for any other."""
    for base in (root, root / "src"):
        path = base.joinpath(*module.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def imported_modules(path: Path) -> set[str]:
    """All names that the file imports, wherever in it, with their parent packages."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[: i + 1]) for name in names for i in range(name.count(".") + 1)}


def closure(module: str, root: Path) -> list[str]:
    """Paths, relative to `root`, of all project files that importing `module` can run; sorted."""
    found: set[Path] = set()
    waiting = {module, module.partition(".")[0]}
    while waiting:
        path = module_file(waiting.pop(), root)
        if path and path not in found:
            found.add(path)
            waiting |= imported_modules(path)
    return sorted(str(path.relative_to(root)) for path in found if path.stat().st_size)
