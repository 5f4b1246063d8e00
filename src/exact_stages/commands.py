"""Write the files of code/, say which stages would run and why, and audit deps: `code`, `why` and `check`."""

import ast
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from os.path import abspath, relpath
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from exact_stages.code import FOLDER, Code, changed, code_of, depends, hashes, lines_of, path_of, which_counts
from exact_stages.console import UserError, shown, some
from exact_stages.declared import STAGES, Declared, explained
from exact_stages.files import read_yaml, write_whole
from exact_stages.provenance import LOCKED, flat


def write(check: bool = False) -> None:
    """Write code/STAGE.txt for each stage of dvc.yaml, all or none; or only check that all are up to date.

    Raises:
        UserError: a stage that depends on its file may run other code than imports show; or a file is not up to date.
    """
    found = codes(Declared())
    before = {path: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.txt"))}
    stale = [path for path, code in found.items() if before.get(path) != code.text]
    stale += [path for path, text in before.items() if path not in found and re.match("[0-9a-f]{64}  ", text)]
    if check:
        now = {path: found[path].lines if path in found else {} for path in stale}
        other = {path: changed(lines_of(before.get(path, "")), lines) for path, lines in now.items()}
        if lines := [f"{path}: {some(each) or 'the text'} changed" for path, each in other.items()]:
            raise UserError("\n  ".join(["code/ is not up to date; run `dvc repro code`", *lines]))
        return
    for path in stale:
        write_whole(path, found[path].text.encode()) if path in found else path.unlink()
    if not LOCKED.is_file():
        print(f"code: no {LOCKED}, so no upgrade of a package makes a stage stale")
    if note := which_counts(found.values()):
        print(f"code: {note}")
    names = some([path.stem for path in stale])
    stages = f"{len(found)} stage{'s' * (len(found) != 1)}"
    print(f"code: {stages}, {f'with changed code: {names}' if stale else 'no changed code'}")


def codes(declared: Declared) -> dict[Path, Code]:
    """Return the code of all stages that Python runs, but that of the stage `code` itself, by file.

    Raises:
        UserError: a stage that depends on its file may run other code than imports show.
    """
    found, faults = dict[Path, Code](), list[str]()
    for name in _stages(declared):
        code = code_of(declared, name)
        if depends(declared, name):
            faults += [f"{name}: {fault}" for fault in code.faults]
        if not code.faults and (code.lines or depends(declared, name)):
            found[path_of(name)] = code
    if faults:
        fix = "let the stage depend on the Python files that it may run, too, or import them"
        raise UserError("\n  ".join([f"dvc.yaml: {fix}", *dict.fromkeys(faults)]))
    return found


def _stages(declared: Declared) -> list[str]:
    """Return the stages, and matrices as one, but for the stage `code` and those over an empty list of no texts."""
    own = [name for name, stage in declared.stages.items() for out in stage.outs if out.fs_path == abspath(FOLDER)]
    return [name for name, items in declared.groups.items() if items and name not in own]


def check() -> None:
    """Print the code that the deps of stages lack, as lines to paste; exit with code 1 if some do."""
    declared, lacking, unchecked = Declared(), 0, 0
    for name in (names := _stages(declared)):
        items, code, held = declared.items(name), code_of(declared, name), set[str]()
        for dep in [dep for item in items for dep in item.deps if dep.protocol == "local"]:
            held |= {*map(abspath, declared.files(dep.fs_path))} if not hasattr(dep, "read_params") else set()
        if depends(declared, name) and path_of(name).is_file():
            held |= {*map(abspath, lines_of(path_of(name).read_text(encoding="utf-8")))}
        missing = [file for file in hashes(code.lines) if abspath(file) not in held and _has_code(file)]
        told = [f"      - {relpath(file, items[0].wdir)}" for file in missing]
        told = [f"{name}: add to deps", *told] if missing else []
        told += [f"{name}: unchecked: {shown(each, 100)}" for each in code.absent + code.hidden]
        print(end="".join(f"{line}\n" for line in told))
        lacking, unchecked = lacking + bool(missing), unchecked + bool(code.absent + code.hidden)
    print(f"{len(names)} stages, {lacking} with missing deps, {unchecked} unchecked")
    sys.exit(lacking > 0)


def _has_code(file: str) -> bool:
    """Tell whether a file has more than comments and a docstring; most __init__.py have not."""
    tree = ast.parse(Path(file).read_bytes())
    return len(tree.body) > (ast.get_docstring(tree) is not None)


def why(wanted: str = "") -> None:
    """Print which stages `dvc repro` would run, and why; run none. Stages of other dvc.yaml must be wanted."""
    declared = Declared()
    if wanted:
        declared.items(wanted)
    found = reasons(declared)
    wants = {wanted} if wanted else {name for name in found if declared.file(name) == STAGES}
    chosen = [name for name in found if {name, name.partition("@")[0]} & wants]
    print(
        "\n".join(f"{name}: {reason}" for name in chosen for reason in found[name]) or f"{wanted or 'all'}: up to date"
    )


def reasons(declared: Declared) -> dict[str, list[str]]:
    """Return why stages are stale, by name."""
    code = codes(declared)
    with explained(), Repo() as repo:
        status = repo.status()  # a stage of another dvc.yaml has the path of that in its name
    locks = [lock for lock in {declared.file(name).with_suffix(".lock") for name in declared.groups} if lock.is_file()]
    recorded = {name: each for lock in locks for name, each in ((read_yaml(lock) or {}).get("stages") or {}).items()}
    found = dict[str, list[str]]()
    for name in [each for group in _stages(declared) for each in declared.stages if each.partition("@")[0] == group]:
        own = path_of(name)
        deps = {dep["path"]: dep.get("md5", "") for dep in recorded.get(name, {}).get("deps", [])}
        told = [
            *_told(status.get(declared.stages[name].addressing, []), str(own)),
            *(_of_code(own, deps.get(str(own), ""), code[own]) if own in code else ()),
        ]
        lock = declared.file(name).with_suffix(".lock")
        found |= {name: told if name in recorded else [f"{lock} has no run of it"]} if told else {}
    while behind := next(_behind(declared, found), None):
        found |= behind
    return found


def _behind(declared: Declared, found: dict[str, list[str]]) -> Iterator[dict[str, list[str]]]:
    """Yield each further stage that depends on an output of these."""
    for other in found:
        outs = tuple(f"{out.fs_path}/" for out in declared.stages[other].outs)
        for name, stage in declared.stages.items():
            if name not in found and any(f"{dep.fs_path}/".startswith(outs) for dep in stage.deps if outs):
                yield {name: [f"after {other}, if outputs of that change"]}


def _told(status: list[Any], own: str) -> Iterator[str]:
    """Yield what DVC tells of a stage, but for the file of its code."""
    for each in status:
        if isinstance(each, str):
            yield each
            continue
        named = {name: state for group in each.values() for name, state in flat(group).items() if name != own}
        yield from (f"{name.removeprefix('params.yaml.')}: {state}" for name, state in named.items())


def _of_code(path: Path, recorded: str, code: Code) -> Iterator[str]:
    """Yield how code differs from that with the md5 that dvc.lock records."""
    if not recorded or _md5(code.text.encode()) == recorded:
        return
    commits = _git("log", "--format=%H", "--", str(path)).decode().split()
    texts = (_git("show", f"{each}:./{path}") for each in commits)
    before = next(
        (text for text in (path.read_bytes() if path.is_file() else b"", *texts) if _md5(text) == recorded), b""
    )
    if not before:
        yield f"{path}: not the text that dvc.lock records, which no commit has"
        return
    old = lines_of(before.decode())
    for name in changed(old, code.lines):
        now, then = code.lines.get(name, ""), old.get(name, "")
        if len(now or then) < 64:
            yield f"{name}: {now or 'not needed'} now, {then or 'not needed'} before"
        elif not now:
            yield f"{name} is not imported now"
        else:
            script, *way = code.closure.way(abspath(name))
            imports = ", which imports ".join([*map(_module, way[:-1]), "it"])
            yield f"{name} {'changed' if then else 'is new'}{f'; {relpath(script)} imports {imports}' if way else ''}"


def _module(file: str) -> str:
    return re.sub(r"^src/|/__init__\.py$|\.py$", "", relpath(file)).replace("/", ".")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], capture_output=True).stdout
