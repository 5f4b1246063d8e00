"""What DVC keeps beside its records: configuration, locks and queue; and whether it can go on with them.

DVC writes these files in place: cut off, they are empty or half a file, and many of its commands fail.
"""

import contextlib
import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from dvc.config import Config
from dvc.dirs import site_cache_dir
from dvc.repo import Repo
from dvc.rwlock import SCHEMA as RWLOCK_SCHEMA
from voluptuous import Invalid

from ddpm.pipeline.console import UserError, shown

CONFIG, LOCAL = Path(".dvc/config"), Path(".dvc/config.local")
TMP = Path(".dvc/tmp")
JSON = ["rwlock", "exps/rwlock", "exps/celery/broker/*/*.exchange", "exps/celery/broker/*/*.msg"]
JSON += ["exps/celery/result/*", "exps/run/*/*.run", "exps/run/*/*.json", "exps/standalone/run/*/*.run"]
HARDLINKS = [
    "lock",
    "rwlock.lock",
    "exps/rwlock.lock",
]  # locks by their mere existence, where core.hardlink_lock is true
STALE = 60  # seconds after which a lock of git is nobody's
READ = ["dvc.lock", "dvc.yaml", "params.yaml", "metrics", "*.dvc", str(CONFIG)]  # of what git merges, by DVC
WHEN = "delete it, when no dvc runs"


def config_faults() -> Iterator[str]:
    """What is wrong with the configuration, a line for each of its files."""
    for file, anew in (CONFIG, f"`git checkout {CONFIG}`"), (LOCAL, "delete it, and set anew what it held"):
        try:
            if file.is_file() and not file.stat().st_size:  # as DVC leaves it when it cannot write a value
                yield f"{file}: empty; {anew}"
            Config.load_file(str(file))
        except FileNotFoundError:
            if file == CONFIG:
                yield f"{file}: no such file; {anew}, at the top of the repository"
        except Exception as error:  # of DVC, of ConfigObj or of the system; its text may quote a password
            line = re.search(r"at line \d+", str(error))
            yield f"{file}: DVC cannot read it{f' ({line[0]})' if line else ''}; {anew}"


def cache_folder() -> Path:
    """Where DVC keeps objects and runs; users may move it."""
    try:
        return Path(Config(".dvc", validate=False)["cache"].get("dir", ".dvc/cache"))
    except Exception:  # config_faults says what is wrong
        return Path(".dvc/cache")


def conflicts() -> dict[Path, str]:
    """What git could not merge of all that DVC reads, with what to do.

    Raises:
        UserError: this is no git repository.
    """
    told = subprocess.run(["git", "grep", "-lIzE", "^(<{7}|>{7}) ", "--", *READ], capture_output=True, text=True)
    if told.returncode > 1:
        raise UserError(f"git grep: {one_line(told.stderr)}")
    faults = {}
    for file in map(Path, filter(None, told.stdout.split("\0"))):
        made = file.name == "dvc.lock" or file.parts[0] == "metrics"  # as the rest is, by hand
        side = f"`git checkout --ours {file}`, or --theirs, of all the same, else delete it; then `dvc repro`"
        hand = "keep one side of it, and delete the lines of <<<<<<<, ======= and >>>>>>>"
        faults[file] = f"{file}: a merge conflict of git; {side if made else hand}"
    return faults


def kill_faults() -> Iterator[str]:
    """What a killed DVC or git has left in the way of the next."""
    for file in sorted(file for pattern in JSON for file in TMP.glob(pattern) if file.is_file()):
        try:
            data = file.read_bytes()
            content = json.loads(data) if data or file.suffix != ".msg" else {}  # DVC passes over an empty message
            if file.name == "rwlock":
                RWLOCK_SCHEMA(content)
        except (ValueError, Invalid):
            yield f"{file}: cut off; {WHEN}"
        except OSError as error:
            yield f"{file}: cannot be read ({error.strerror}); {WHEN}"
    if _hardlink_locks():
        yield from (f"{TMP / name}: left by a killed dvc; {WHEN}" for name in HARDLINKS if (TMP / name).exists())
    told = subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, text=True)
    for file in sorted(Path(told.stdout.strip()).glob("*.lock")):
        with contextlib.suppress(FileNotFoundError):  # gone since
            if time.time() - file.stat().st_mtime < STALE:
                continue
            yield f"{file}: left by a killed git or dvc; delete it, when neither runs"


def refusal() -> Iterator[str]:
    """What DVC says when it loads all its files, if it refuses them."""
    try:
        with Repo() as repo:
            _ = repo.data_index, list(repo.index.outs)
    except sqlite3.DatabaseError as error:
        folder = Path(site_cache_dir(), "repo")
        yield f"{folder}: DVC's database is damaged ({error}); {WHEN}: it makes it anew"
    except Exception as error:  # whatever it is, DVC ends with it
        yield f"DVC refuses its files: {one_line(error)}; `dvc status` may say more"


def one_line(error: object) -> str:
    """What an error says, for one line of a message."""
    return shown(" ".join(str(error).split()))


def _hardlink_locks() -> bool:
    try:
        return bool(Config(".dvc")["core"]["hardlink_lock"])
    except Exception:  # config_faults says what is wrong
        return False
