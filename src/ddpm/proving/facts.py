"""Compare what made a file, by its provenance, with this checkout."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from ddpm.compute.device import ARITHMETIC
from ddpm.images.arrays import contents
from exact_stages.check import check
from exact_stages.console import UserError, shown
from exact_stages.declared import Declared
from exact_stages.files import md5, sha256
from exact_stages.params import Section
from exact_stages.provenance import beside, flat, packages

Facts = dict[tuple[str, str], str]  # by kind and name: how it differs; empty if it holds
KINDS = ("code", "params", "packages", "inputs", "environment")  # what a stage ran on


class Provenance(Section):
    """What a stage recorded with a file; see `exact_stages.stage.Stage.record`."""

    file: str
    sha256: str
    stage: str
    code: dict[str, str]
    params: dict[str, Any]
    packages: dict[str, str]
    inputs: dict[str, str]
    origins: tuple[str, ...]
    environment: dict[str, Any]
    resolved: dict[str, Any]
    contents: dict[str, dict[str, Any]] | None = None


def read_provenance(path: Path) -> Provenance:
    """Read a provenance.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        made = "`dvc pull` or `dvc repro` brings those of train, distill and preprocess"
        raise UserError(f"{path}: no such file; {made}; other files, such as classifiers, have none") from None
    except ValueError:
        raise UserError(f"{path}: damaged, or no provenance; `dvc checkout` or `dvc pull` restores it") from None


def chain(made: Provenance, above: tuple[Path, ...] = ()) -> dict[str, Provenance]:
    """Return the provenance of what a file was made from, and last its own, by the path of the provenance.

    Args:
        above: the provenance files that led here; a damaged one may name itself.
    """
    found: dict[str, Provenance] = {}
    for origin in map(Path, made.origins):
        if origin in above or not origin.is_file():
            continue
        if (parent := read_provenance(origin)).sha256 == made.inputs.get(parent.file):
            found |= chain(parent, (*above, origin))
    return found | {beside(Path(made.file)).as_posix(): made}


def facts_of(file: Path, made: Provenance, environment: dict[str, Any]) -> Facts:
    """Compare a file, and all that made it, with its provenance, this checkout and this machine.

    Raises:
        UserError: the file is missing or damaged; or dvc.yaml lacks a stage that led to it.
    """
    recorded, now = made.contents or {}, contents(file) if made.contents else {}
    found = {key: fault for kind in now for key, fault in compared(kind, recorded.get(kind, {}), now[kind]).items()}
    if not any(found.values()):
        found["file", str(file)] = "" if sha256(file) == made.sha256 else "differs"
    known, declared, locked = chain(made), Declared(), packages()
    for each in known.values():
        if each.stage.partition("@")[0] not in declared.groups:
            raise UserError(f"dvc.yaml: has no stage {shown(each.stage)}, which made {shown(each.file)}")
        deps = {dep: [*declared.files(dep)] for dep in declared.deps(each.stage)}
        code = {file for files in deps.values() for file in files if file.endswith(".py")}
        ignored = {name for name in each.code if declared.ignore.is_ignored_file(os.path.abspath(name))}
        if ignored:  # recorded before .dvcignore named them; those that the stage imports count
            code |= ignored & {*check(Path("dvc.yaml"))[each.stage.partition("@")[0]][0]}
        new = {file for dep in deps.keys() - declared.outs for file in _new(deps[dep], each.inputs)}
        here: dict[str, dict[str, Any]] = {
            "code": {name: each.code[name] for name in ignored} | {file: sha256(Path(file)) for file in code},
            "params": declared.params(each.stage),
            "packages": locked,
            "inputs": {name: sha256(Path(name)) for name in {*each.inputs, *new} if Path(name).is_file()},
            "environment": _here(each.environment, environment),
        }
        for key, fault in differences(each, here).items():
            found[key] = found.get(key) or fault
        found |= {
            ("provenance", name): "" if name in known else "not here, or of another file" for name in each.origins
        }
    return found


def _new(files: list[str], recorded: dict[str, str]) -> set[str]:
    """Return the files of a dep that its stage would read now, and did not: beside code, or of a kind that it read."""
    beside_code = any(file.endswith(".py") for file in files)
    kinds = {Path(file).suffix for file in files if file in recorded}
    seen = {file for file in files if not file.endswith(".py") and "/." not in f"/{file}"}
    return {file for file in seen - recorded.keys() if beside_code or Path(file).suffix in kinds}


def _here(recorded: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of this machine that a provenance has, and variables that it lacks.

    Threads and processes of CPUs are in those of earlier code only; a rebuild sets them.
    """
    variables = {name: environment[name] for name in ARITHMETIC if name in environment and recorded}
    chosen = {name: recorded[name] for name in ("threads", "processes") if name in recorded and name not in environment}
    return {name: environment.get(name) for name in recorded} | variables | chosen


def differences(made: Provenance, here: dict[str, dict[str, Any]]) -> Facts:
    """Compare what two runs of a stage ran on."""
    return {key: fault for kind in KINDS for key, fault in compared(kind, getattr(made, kind), here[kind]).items()}


def compared(kind: str, recorded: dict[str, Any], here: dict[str, Any]) -> Facts:
    """Compare values by dotted name."""
    recorded, here = flat(recorded), flat(here)

    def fault(name: str) -> str:
        if name not in here or name not in recorded:
            return "not here" if name in recorded else "not recorded"
        if here[name] == recorded[name]:
            return ""
        hashes = kind in ("code", "inputs", "weights")
        return "differs" if hashes else f"{shown(str(here[name]), 60)} here, {shown(str(recorded[name]), 60)} recorded"

    return {(kind, name): fault(name) for name in sorted({*recorded, *here})}


def commit_of(path: Path, made: Provenance) -> str:
    """Return the earliest commit whose dvc.lock records a provenance, and whose code it names; empty if none does."""
    digest, log = md5(path), ("log", "--reverse", "--format=%H")
    first = git(*log, f"-S{digest}", "--", "dvc.lock").decode().split()[:1]
    later = git(*log, f"{first[0]}..HEAD", "--", "dvc.lock", *made.code).decode().split() if first else []

    def fits(commit: str) -> bool:
        code = ((git("show", f"{commit}:{name}"), expected) for name, expected in made.code.items())
        lock = git("show", f"{commit}:dvc.lock")
        return digest.encode() in lock and all(hashlib.sha256(data).hexdigest() == expected for data, expected in code)

    return next(filter(fits, first + later), "")


def git(*arguments: str) -> bytes:
    """Return what a git command prints; nothing if it fails."""
    return subprocess.run(["git", *arguments], capture_output=True).stdout
