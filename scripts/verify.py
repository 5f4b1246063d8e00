"""Hash every output in the workspace and every object of the local cache, and name those that are damaged.

Run it as `make verify`. `dvc status` goes by times and sizes, so it does not see what a bad disk changes.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo

from ddpm.pipeline.console import UserError, progress, run

MEND = (
    "`dvc add` data of your own that you have changed, and delete the rest. Then `git checkout` brings back "
    "what git has, `dvc checkout` what the cache has, `dvc pull` what a remote has, and `dvc repro` makes the others."
)


class File(NamedTuple):
    """A file, and the hash that it should have."""

    path: Path
    md5: str


def main() -> None:
    """Check everything, and then say all that is damaged.

    Raises:
        UserError: a file is not as recorded, or DVC cannot read its own records.
    """
    try:
        with Repo() as repo:
            outputs = [output for output in repo.index.outs if output.hash_info.name == "md5"]
            cache = Path(repo.cache.local.path)
    except DvcException as error:
        mend = "`git checkout` the file, or delete dvc.lock, which `dvc repro` makes anew"
        raise UserError(f"DVC cannot read its records: {' '.join(str(error).split())}; {mend}") from None
    files, absent = [*objects(cache)], 0
    for output in outputs:
        try:
            files += recorded(output, cache)
        except (FileNotFoundError, ValueError):
            absent += 1
            print(f"not checked: {output}, for it is not here, or the listing of its folder is not in the cache")
    damaged = [line for file in progress(files, desc="verify", unit="file") if (line := damage(file))]
    if damaged:
        raise UserError("\n  ".join([f"{len(damaged)} damaged", *damaged, MEND]))
    print(f"{len(outputs) - absent} outputs and the cache are whole: {len(files)} files")


def objects(cache: Path) -> Iterator[File]:
    """Yield every object of the cache: its name is its hash."""
    for path in sorted(cache.glob("??/*")):
        if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", path.name):
            yield File(path, path.parent.name + path.name.removesuffix(".dir"))


def recorded(output: Output, cache: Path) -> list[File]:
    """List the files of an output, by dvc.lock, a *.dvc file, or the listing of a folder in the cache.

    Raises:
        FileNotFoundError, ValueError: the output, or the listing of its folder, is not there or not whole.
    """
    path, md5 = Path(output.fs_path), str(output.hash_info.value)
    path.lstat()
    if not md5.endswith(".dir"):
        return [File(path, md5)]
    listing = json.loads((cache / md5[:2] / md5[2:]).read_bytes())
    return [File(path / entry["relpath"], entry["md5"]) for entry in listing]


def damage(file: File) -> str:
    """Say what is wrong with a file, or nothing."""
    try:
        with file.path.open("rb") as opened:
            found = hashlib.file_digest(opened, "md5").hexdigest()
    except OSError as error:
        return f"{file.path}: {error.strerror}"
    return "" if found == file.md5 else f"{file.path}: not what was recorded"


if __name__ == "__main__":
    run(main)
