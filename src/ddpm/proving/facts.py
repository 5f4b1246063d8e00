"""Compare what made a file, by its provenance, with this checkout."""

import json
import subprocess
from pathlib import Path
from typing import Any, Literal

from ddpm.images.arrays import contents
from ddpm.images.fetching import FILES
from ddpm.images.folders import SUFFIXES
from ddpm.images.tables import TABLES
from ddpm.processes.device import ARITHMETIC
from exact_stages.code import code_of, hashes, packages
from exact_stages.console import UserError, shown
from exact_stages.declared import Declared
from exact_stages.files import md5, sha256
from exact_stages.params import Section
from exact_stages.provenance import beside, flat
from exact_stages.source import parsed

Facts = dict[tuple[str, str], str]  # by kind and name: how it differs; empty if it holds
MODEL, METRICS = Path("models/ddpm.safetensors"), Path("metrics/train")
KINDS = ("code", "params", "packages", "inputs", "environment")  # what a stage ran on


class Provenance(Section):
    """What a stage recorded with a file; see `exact_stages.stage.Stage.record`."""

    version: Literal[2]
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
    trail: dict[str, str] | None = None


def read_provenance(path: Path) -> Provenance:
    """Read a provenance.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        if "version" not in json.loads(data := path.read_bytes()):
            raise UserError(
                f"{path}: of the kind before code had hashes without comments; prove it in a commit of that time"
            )
        return Provenance.model_validate_json(data)
    except FileNotFoundError:
        made = "`dvc pull` or `dvc repro` brings those of train, distill and preprocess"
        raise UserError(f"{path}: no such file; {made}; other files, such as classifiers, have none") from None
    except ValueError:
        raise UserError(f"{path}: damaged, or no provenance; `dvc checkout` or `dvc pull` restores it") from None


def committed(file: Path) -> Provenance | None:
    """Return what git alone tells of the model file of the last commit, without the DVC cache; None for other files."""
    if file != MODEL or not (environment := git("show", f"HEAD:{METRICS}/environment.json")):
        return None
    summary = json.loads(git("show", f"HEAD:{METRICS}/summary.json") or b"{}")
    known = {"environment": json.loads(environment), "trail": dict(map(str.split, summary.get("trail", [])))}
    return Provenance.model_construct(file=str(file), stage="train", sha256="", inputs={}, origins=(), **known)


def chain(made: Provenance) -> dict[str, Provenance]:
    """Return the provenance of what a file was made from, and last its own, by the path of the provenance."""
    found: dict[str, Provenance] = {}
    for origin in map(Path, made.origins):
        if origin.is_file() and (parent := read_provenance(origin)).sha256 == made.inputs.get(parent.file):
            found |= chain(parent)
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
        files = {file for dep in declared.deps(each.stage) - declared.outs for file in declared.files(dep)}
        read = {file for file in files if _may_be_read(Path(file))} | {*each.inputs}
        named = {*each.environment, *ARITHMETIC} if each.environment else set[str]()
        here: dict[str, dict[str, Any]] = {
            "code": hashes(code_of(declared, each.stage).lines),
            "params": declared.params(each.stage),
            "packages": locked,
            "inputs": {file: sha256(Path(file)) for file in read if Path(file).is_file()},
            "environment": {name: value for name, value in environment.items() if name in named},
        }
        for key, fault in differences(each, here).items():
            found[key] = found.get(key) or fault
        found |= {
            ("provenance", name): "" if name in known else "not here, or of another file" for name in each.origins
        }
    return found


def _may_be_read(file: Path) -> bool:
    """Tell whether `preprocess` reads such files: images, tables of labels, raw files of MNIST."""
    return file.name[0] != "." and (file.suffix.lower() in SUFFIXES or file.name in {*TABLES, *FILES})


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
    for commit in first + later:
        code = (made.code[name] in _hashes(git("show", f"{commit}:{name}")) for name in made.code)
        if digest.encode() in git("show", f"{commit}:dvc.lock") and all(code):
            return commit
    return ""


def _hashes(data: bytes) -> tuple[str, ...]:
    """Return the hashes that code may have, without comments and with them."""
    try:
        return parsed(data)[:2]
    except (SyntaxError, ValueError):
        return ()


def git(*arguments: str) -> bytes:
    """Return what a git command prints; nothing if it fails."""
    return subprocess.run(["git", *arguments], capture_output=True).stdout
