"""Hash all outputs in the workspace and all objects in the local cache.

`dvc status` compares only times and sizes, so it misses damage by a bad disk.
"""

import json
import re
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo

from exact_stages.console import UserError, progress
from exact_stages.files import md5

MEND = (
    "`dvc add` your own data if you have changed it, and delete the other files. Then restore them: `git checkout` "
    "from git, `dvc checkout` from the cache, `dvc pull` from a remote, or `dvc repro`."
)


def check_all() -> None:
    """Check all files, then list all damaged ones.

    Raises:
        UserError: a file differs from its record, or the records cannot be read.
    """
    try:
        with Repo() as repo:
            known = [output for output in repo.index.outs if output.hash_info.name == "md5"]
            outputs = [each for each in known if each.use_cache or not each.hash_info.isdir]  # git lists code/
            cache = Path(repo.cache.local.path)
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"DVC cannot read its records: {reason}; `git checkout` the file") from None
    objects = [path for path in sorted(cache.glob("??/*")) if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", path.name)]
    expected = {path: path.parent.name + path.name.removesuffix(".dir") for path in objects}
    absent = 0
    for output in outputs:
        try:
            expected |= _recorded(output, cache)
        except (FileNotFoundError, ValueError):
            absent += 1
            print(f"not checked: {output}; it or the listing of its folder is missing")
    checked = progress(expected.items(), desc="verify", unit="file")
    damaged = [f"{path}: {found}" for path, digest in checked if (found := _damage(path, digest))]
    if damaged:
        raise UserError("\n  ".join([f"{len(damaged)} damaged", *damaged, MEND]))
    print(f"{len(outputs) - absent} outputs and the cache are whole: {len(expected)} files")


def _recorded(output: Output, cache: Path) -> dict[Path, str]:
    """Return the files of an output with the hashes that DVC recorded.

    Raise FileNotFoundError or ValueError if the output, or the listing of its folder, is missing or damaged.
    """
    path, digest = Path(output.fs_path), str(output.hash_info.value)
    path.lstat()
    if not digest.endswith(".dir"):
        return {path: digest}
    listing = json.loads((cache / digest[:2] / digest[2:]).read_bytes())
    return {path / entry["relpath"]: entry["md5"] for entry in listing}


def _damage(path: Path, digest: str) -> str:
    """Return what is wrong with a file, or an empty string."""
    try:
        return "" if md5(path) == digest else "differs from its recorded hash"
    except OSError as error:
        return str(error.strerror)
