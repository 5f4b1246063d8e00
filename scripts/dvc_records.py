"""What DVC has recorded of outputs: dvc.lock, the *.dvc files and the run cache, as strictly as DVC reads them or more.

DVC writes them in place: cut off, they are empty or half a file, which it refuses, takes for less, or fails on.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA, COMPILED_LOCKFILE_SCHEMA, COMPILED_SINGLE_STAGE_SCHEMA
from voluptuous import Invalid

from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import read_yaml
from scripts.dvc_state import one_line

LOCK = Path("dvc.lock")
KNOWN = {"md5", "etag", "checksum", "files", "cloud", "dataset"}  # one of them says what a file was


class Output(NamedTuple):
    """A file or folder that DVC has, as `record` says, which is dvc.lock or a *.dvc file."""

    path: Path
    md5: str  # of a folder, it ends in .dir
    record: Path
    stage: str = ""


def recorded(skip: set[Path]) -> tuple[list[Output], list[str]]:
    """All outputs by dvc.lock and the *.dvc files but those of `skip`, and a line for each file that is at fault."""
    outputs: list[Output] = []
    faults = []
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.dvc"]
    listed = subprocess.run(listing, capture_output=True, text=True).stdout.split("\0")
    files = sorted(file for file in map(Path, set(filter(None, listed))) if file.exists())
    for record in [file for file in (LOCK, *files) if file not in skip]:
        command = "dvc repro" if record == LOCK else f"dvc add {record.with_suffix('')}"
        try:
            for output in lock_outputs() if record == LOCK else file_outputs(record):
                outputs.append(output)
            if not record.read_bytes().endswith(b"\n"):  # as DVC ends all it writes
                raise Invalid("its last line is cut off")
        except (Invalid, UserError) as error:
            said = f"{record}: not as DVC writes it: {one_line(error)}" if isinstance(error, Invalid) else str(error)
            first = "delete it: " if os.path.lexists(record) else ""
            faults.append(f"{said}; `git checkout {record}`, or {first}`{command}` makes it anew")
    return outputs, faults


def lock_outputs() -> Iterator[Output]:
    """The outputs of all stages.

    Raises:
        Invalid, UserError: dvc.lock is not there, or not whole.
    """
    lock = COMPILED_LOCKFILE_SCHEMA(read_yaml(LOCK))
    for name, stage in lock.get("stages", {}).items():
        outs = stage.get("outs", [])
        for entry in [*stage.get("deps", []), *outs]:
            if not is_whole(entry):
                raise Invalid(f"cut off at {entry['path']} of stage {name}")
        yield from (Output(Path(out["path"]), out["md5"], LOCK, name) for out in outs if "md5" in out)


def file_outputs(record: Path) -> Iterator[Output]:
    """What was added by `dvc add`; what has another hash, as imports may, is passed over.

    Raises:
        Invalid, UserError: the *.dvc file is not whole.
    """
    content = COMPILED_SINGLE_STAGE_SCHEMA(read_yaml(record))
    for out in content.get("outs") or []:
        if "path" not in out:
            raise Invalid("an output has no path")
        if "md5" in out and out.get("hash") == "md5":  # without a hash's name it is one of DVC 2
            if not is_whole(out):
                raise Invalid(f"cut off at {out['path']}")
            yield Output(record.parent / (content.get("wdir") or "") / out["path"], out["md5"], record)
    if not content.get("outs"):
        raise Invalid("it has no outs")


def run_faults(cache: Path) -> Iterator[str]:
    """The folders of the run cache on which DVC fails when it looks for a run: empty ones too."""
    for folder in sorted(cache.glob("runs/??/*")):
        try:
            runs = [COMPILED_LOCK_FILE_STAGE_SCHEMA(read_yaml(file)) for file in folder.iterdir()]
            whole = all("outs" in run and all(map(is_whole, [*run.get("deps", []), *run["outs"]])) for run in runs)
        except (Invalid, UserError, OSError):
            runs = []
        if not (runs and whole):
            yield f"{folder}: has no whole run; delete this folder, when no dvc runs"


def is_whole(entry: dict[str, Any]) -> bool:
    """Whether a record has its hash, and not a part of it: on what is left of some DVC fails."""
    md5 = entry.get("md5", "0" * 32)
    complete = isinstance(md5, str) and re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5) is not None
    return complete and entry.get("hash", "md5") == "md5" and not KNOWN.isdisjoint(entry)
