"""Hash every output in the workspace and every object in the local cache anew; say what is damaged and how to mend it.

`dvc status` trusts its database of times and sizes: what a bad disk changes, it does not see. What a kill or a merge
has left of DVC's own files is found as well. Run it as `make verify`.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ddpm.pipeline.console import UserError, progress, run
from scripts import dvc_records, dvc_state
from scripts.dvc_records import Output

CHUNK = 1 << 20
KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class File(NamedTuple):
    """What is to be hashed: an output, a file in one, or, without an output, an object of the cache."""

    path: Path
    md5: str  # that it should have; of a folder it ends in .dir, and only its kind is checked
    output: Output | None = None


def main() -> None:
    """Check everything before saying anything; fail when one byte is not as recorded."""
    conflicts = dvc_state.conflicts()
    cache = dvc_state.cache_folder()
    outputs, faults = dvc_records.recorded(skip=set(conflicts))
    faults = [*conflicts.values(), *dvc_state.config_faults(), *faults, *dvc_state.kill_faults()]
    faults += dvc_records.run_faults(cache)
    faults = faults or list(dvc_state.refusal())  # what DVC minds and the others did not find

    here = [output for output in outputs if is_here(output.path) and output.path not in conflicts]
    listings = {output: members(output, cache) for output in here if output.md5.endswith(".dir")}
    files = [*objects(cache / "files/md5", faults), *(File(output.path, output.md5, output) for output in here)]
    files += [file for listing in listings.values() for file in listing or []]
    total = sum(os.path.getsize(file.path) for file in files if os.path.isfile(file.path))
    with progress(desc="verify", total=total, unit="B", unit_scale=True) as bar:
        damaged = {file: found for file in files if (found := fault(file, bar))}

    whole = {file.md5 for file in files if not file.output and file not in damaged}
    owners = {file.md5.removesuffix(".dir"): file.output for file in files if file.output}
    faults += [f"{file.path}: {found}; {mend(file, found, whole, owners)}" for file, found in damaged.items()]
    if missing := len(outputs) - len(here):
        print(f"{missing} of {len(outputs)} outputs are not here, which is no damage; `dvc pull` or `dvc repro`")
    for output in (output for output, listing in listings.items() if listing is None):
        print(f"{output.path}: not checked, since its listing is not in the cache; `dvc pull {output.path}`")
    if faults:
        raise UserError("\n  ".join([f"{len(faults)} damaged", *faults]))
    print(f"{len(here)} outputs and {sum(not file.output for file in files)} cached objects are whole")


def is_here(path: Path) -> bool:
    """Whether anything stands there, be it a dangling link, or what is in the way."""
    try:
        path.lstat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    return True


def objects(folder: Path, faults: list[str]) -> list[File]:
    """All that has the name of an object; folders that cannot be read are added to `faults`."""

    def entries(folder: Path, pattern: str) -> list[Path]:
        try:
            return sorted(path for path in folder.iterdir() if re.fullmatch(pattern, path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            faults.append(f"{folder}: no folder that can be read ({error.strerror}); see to it, or delete it")
            return []

    prefixes = entries(folder, "[0-9a-f]{2}")
    paths = [path for prefix in prefixes for path in entries(prefix, r"[0-9a-f]{30}(\.dir)?")]
    return [File(path, path.parent.name + path.name.removesuffix(".dir")) for path in paths]


def members(output: Output, cache: Path) -> list[File] | None:
    """The files of a folder, by the listing in the cache; None where there is none to go by."""
    listing = cache / "files/md5" / output.md5[:2] / output.md5[2:]
    try:
        if not output.path.is_dir():
            return []
        if not listing.is_file():
            return None
        entries = json.loads(listing.read_bytes())
        return [File(output.path / str(entry["relpath"]), str(entry["md5"]), output) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def fault(file: File, bar: "tqdm[None]") -> str:
    """What is wrong with a file, or nothing."""
    belongs = stat.S_IFDIR if file.md5.endswith(".dir") else stat.S_IFREG
    try:
        kind = stat.S_IFMT(file.path.stat().st_mode)
        if kind != belongs:  # not opened: a pipe would wait for a writer
            return f"{KINDS[kind]} where {KINDS[belongs]} belongs"
        if kind == stat.S_IFDIR or md5(file.path, bar) == file.md5:
            return ""
        return f"not what {file.output.record} records" if file.output else "damaged"
    except FileNotFoundError:
        return f"a link to {file.path.readlink()}, which is not there" if file.path.is_symlink() else "not there"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def mend(file: File, found: str, whole: Set[str], owners: Mapping[str, Output]) -> str:
    """What brings it back, with the objects of the cache that are whole."""
    output = file.output
    if not output:
        owner = owners.get(file.md5)
        made = f"`dvc add {owner.path}`, if that is whole" if owner and not owner.stage else "`dvc repro`"
        return f"delete it, then `dvc pull` or {made}"
    if {file.md5.removesuffix(".dir"), output.md5.removesuffix(".dir")} <= whole:
        made = f"`dvc checkout {output.path}`"
    elif output.stage:
        made = f"`git checkout {output.path}`, `dvc pull` or `dvc repro {output.stage}`"
    else:
        made = f"`dvc pull {output.path}`"
    changed = found.startswith("not") and not output.stage  # a folder of the user's own
    return f"{f'`dvc add {output.path}` if you changed it, else ' if changed else ''}delete it, then {made}"


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
