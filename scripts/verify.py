"""Hash all outputs in the workspace and all objects in the local cache, and list the damaged ones.

Run it as `make verify`. `dvc status` compares only times and sizes, so it misses damage by a bad disk.
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

from exact_stages.console import UserError, progress, run
from scripts.readable import check_readable

MEND = (
    "`dvc add` your own data if you have changed it, and delete the other files. Then restore them: `git checkout` "
    "from git, `dvc checkout` from the cache, `dvc pull` from a remote, or `dvc repro`."
)


class File(NamedTuple):
    """A file and its expected hash."""

    path: Path
    md5: str


def main() -> None:
    """Check all files, then list all damaged ones.

    Raises:
        UserError: a file differs from its record, or the records cannot be read.
    """
    check_readable()
    try:
        with Repo() as repo:
            outputs = [output for output in repo.index.outs if output.hash_info.name == "md5"]
            cache = Path(repo.cache.local.path)
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"DVC cannot read its records: {reason}; `git checkout` the file") from None
    files, absent = [*objects(cache)], 0
    for output in outputs:
        try:
            files += recorded(output, cache)
        except (FileNotFoundError, ValueError):
            absent += 1
            print(f"not checked: {output}; it or the listing of its folder is missing")
    damaged = [line for file in progress(files, desc="verify", unit="file") if (line := damage(file))]
    if damaged:
        raise UserError("\n  ".join([f"{len(damaged)} damaged", *damaged, MEND]))
    print(f"{len(outputs) - absent} outputs and the cache are whole: {len(files)} files")


def objects(cache: Path) -> Iterator[File]:
    """Yield every object of the cache; its name is its hash."""
    for path in sorted(cache.glob("??/*")):
        if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", path.name):
            yield File(path, path.parent.name + path.name.removesuffix(".dir"))


def recorded(output: Output, cache: Path) -> list[File]:
    """List the files of an output with the hashes that DVC recorded.

    Raises:
        FileNotFoundError, ValueError: the output, or the listing of its folder, is missing or damaged.
    """
    path, md5 = Path(output.fs_path), str(output.hash_info.value)
    path.lstat()
    if not md5.endswith(".dir"):
        return [File(path, md5)]
    listing = json.loads((cache / md5[:2] / md5[2:]).read_bytes())
    return [File(path / entry["relpath"], entry["md5"]) for entry in listing]


def damage(file: File) -> str:
    """Return what is wrong with a file, or an empty string."""
    try:
        with file.path.open("rb") as opened:
            found = hashlib.file_digest(opened, "md5").hexdigest()
    except OSError as error:
        return f"{file.path}: {error.strerror}"
    return "" if found == file.md5 else f"{file.path}: differs from its recorded hash"


if __name__ == "__main__":
    run(main)
