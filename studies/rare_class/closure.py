"""Find the files that importing a module of the project runs."""

import ast
from pathlib import Path


def module_file(module: str, root: Path) -> Path | None:
    """Return the file of one of the project's modules, or None for other modules."""
    for base in (root, root / "src"):
        path = base.joinpath(*module.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def imported_modules(path: Path) -> set[str]:
    """Return all names that a file imports, anywhere in it, with their parent packages."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[: i + 1]) for name in names for i in range(name.count(".") + 1)}


def closure(module: str, root: Path) -> list[str]:
    """Return the sorted paths, relative to `root`, of all project files that importing `module` can run."""
    found: set[Path] = set()
    waiting = {module, module.partition(".")[0]}
    while waiting:
        path = module_file(waiting.pop(), root)
        if path and path not in found:
            found.add(path)
            waiting |= imported_modules(path)
    return sorted(str(path.relative_to(root)) for path in found if path.stat().st_size)
