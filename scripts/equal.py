"""After a run: say that all stages are up to date, and whether the model is the committed one; if not, what differs.

DVC does not see the precision: it leaves a stage as it is, and its run cache brings back what was made in another one.
So each stage records its precision, and this names those whose precision is not the one that DDPM_PRECISION asks for,
or, if it is not set, not that of the training.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ddpm.processes.portable import PORTABLE
from ddpm.proving.rebuild import rename_torch
from exact_stages.code import lines_of, path_of
from exact_stages.console import run
from exact_stages.files import md5
from exact_stages.provenance import flat

MODEL, ENVIRONMENT, LOCK = Path("models/ddpm.safetensors"), Path("metrics/train/environment.json"), Path("dvc.lock")
CODE = path_of("train")


def main() -> None:
    """Print two lines, and one more if stages have another precision."""
    print("all stages are up to date")
    found = precisions()
    asked = os.environ.get("DDPM_PRECISION") or found.get("train", "")
    if left := {stage: name for stage, name in found.items() if name != asked}:
        made = f"{', '.join(left)}: up to date, but made in {' or '.join(sorted({*left.values()}))}, not {asked}"
        print(f"{made}; `dvc repro --force` makes all stages again")
    before, after = (facts(*map(read, (LOCK, ENVIRONMENT, CODE))) for read in (committed, Path.read_bytes))
    wanted = before.pop(str(MODEL), None)
    after.pop(str(MODEL), None)
    if wanted is None:
        print(f"{MODEL}: no commit records it yet")
    elif md5(MODEL) == wanted:
        print(f"{MODEL}: equal to the committed one, byte for byte")
    elif before.get("precision") != after.get("precision"):
        ours, theirs = (f"{each['precision']}{' mode' * (each['precision'] == PORTABLE)}" for each in (after, before))
        print(f"{MODEL}: not the committed bytes, as expected: made in {ours}, the committed one in {theirs}. ", end="")
        print(f"`ddpm prove --rebuild {MODEL}` makes those{', in about twice the time' * (PORTABLE in theirs)}.")
    else:
        other = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if other == ["torch"] and renamed(before["torch"]) == wanted:
            print(f"{MODEL}: equal to the committed one, but it names torch {after['torch']}, not {before['torch']}")
            return
        print(f"{MODEL}: not the committed one; what differs: {', '.join(other) or 'nothing that is recorded'}")


def precisions() -> dict[str, str]:
    """Return the precision in which each stage was made, if it says so."""
    found = {}
    for path in sorted(Path("metrics").rglob("*.json")):
        values = json.loads(path.read_bytes())
        if made_in := values.get("precision" if path == ENVIRONMENT else "made_in"):
            found[path.parts[1]] = made_in
    return found


def renamed(torch: str) -> str:
    """Return the md5 that the model would have if it named another version of torch."""
    with tempfile.TemporaryDirectory() as folder:
        rename_torch(MODEL, Path(folder, "model"), torch)
        return md5(Path(folder, "model"))


def committed(path: Path) -> bytes:
    """Return a file of the last commit; nothing if that lacks it."""
    return subprocess.run(["git", "show", f"HEAD:{path}"], capture_output=True).stdout


def facts(lock: bytes, environment: bytes, code: bytes) -> dict[str, Any]:
    """Return the md5 of the model, and what decided it: code, deps, params and environment of the stage train."""
    stage = ((YAML(typ="safe").load(lock) or {}).get("stages") or {}).get("train") or {}
    found = {each["path"]: each["md5"] for each in stage.get("deps", []) if each["path"] != str(CODE)}
    found |= lines_of(code.decode())
    found |= {each["path"]: each["md5"] for each in stage.get("outs", []) if each["path"] == str(MODEL)}
    found |= flat(stage.get("params", {}).get("params.yaml", {}))
    return found | json.loads(environment or b"{}")


if __name__ == "__main__":
    run(main)
