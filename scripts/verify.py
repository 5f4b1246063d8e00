"""Hash every output in the workspace and every object in the local cache anew; say what is damaged and how to mend it.

`dvc status` trusts its database of times and sizes: what a bad disk changes, it does not see. Run it as `make verify`.
"""

import hashlib
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import stages  # noqa: F401  (puts the library beside dvc.yaml on the path)
from ddpm.runtime.console import UserError, progress, run
from ddpm.runtime.params import read_yaml

LOCK = Path("dvc.lock")
CHUNK = 1 << 20


class Output(NamedTuple):
    """One file that a stage made, as dvc.lock records it."""

    path: Path
    md5: str
    stage: str


def main() -> None:
    """Check everything before saying anything; fail when one byte is not as recorded."""
    outputs = locked_outputs()
    cache = cache_folder()
    objects = [path for path in sorted(cache.glob("??/*")) if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", path.name)]
    present = [output for output in outputs if output.path.is_file()]
    total = sum(path.stat().st_size for path in [*objects, *(output.path for output in present)])
    with progress(desc="verify", total=total, unit="B", unit_scale=True) as bar:
        bad_objects = {path for path in objects if md5(path, bar) != name_of(path)}
        bad_outputs = [output for output in present if md5(output.path, bar) != output.md5]
    whole = {name_of(path) for path in objects if path not in bad_objects}
    problems = [f"{path}: damaged; delete it, then `dvc pull` or `dvc repro`" for path in sorted(bad_objects)]
    for output in bad_outputs:
        problems.append(f"{output.path}: not what {LOCK} records; {mend(output, whole)}")
    missing = [output for output in outputs if output not in present]
    if missing:
        print(f"{len(missing)} of {len(outputs)} outputs are not here, which is no damage; `dvc pull` or `dvc repro`")
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} damaged", *problems]))
    print(f"{len(present)} outputs and {len(objects)} cached objects are whole")


def locked_outputs() -> list[Output]:
    """Every output of every stage.

    Raises:
        UserError: there is no readable dvc.lock here.
    """
    mend = f"`git checkout {LOCK}`, or delete it: `dvc repro` makes it anew"
    try:
        lock = read_yaml(LOCK)
        return [
            Output(Path(out["path"]), out["md5"], name)
            for name, stage in lock["stages"].items()
            for out in stage.get("outs", [])
        ]
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{LOCK}: not a lock of DVC; {mend}") from None
    except UserError as error:
        raise UserError(f"{error}; {mend}" if LOCK.exists() else str(error)) from None


def cache_folder() -> Path:
    """Where DVC keeps objects; users may move the cache."""
    told = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True)
    if told.returncode:
        raise UserError(f"dvc cache dir: {told.stderr.strip()}")
    return Path(told.stdout.strip()) / "files/md5"


def mend(output: Output, whole_objects: set[str]) -> str:
    """What brings back an output that is not as recorded."""
    if output.md5 in whole_objects:
        return f"delete it, then `dvc checkout {output.path}`"
    return f"delete it, then `git checkout {output.path}`, `dvc pull` or `dvc repro {output.stage}`"


def name_of(path: Path) -> str:
    """The hash that an object in the cache should have, by its path."""
    return path.parent.name + path.name.removesuffix(".dir")


def md5(path: Path, bar: "tqdm[None]") -> str:
    """Hash a file, moving the bar by its bytes."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


if __name__ == "__main__":
    run(main)
