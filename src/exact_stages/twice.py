"""Run a stage twice, in clones that differ in what should not matter, and compare: `exact_stages twice STAGE`."""

import argparse
import contextlib
import csv
import filecmp
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from os.path import relpath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dvc.exceptions import OutputNotFoundError
from dvc.repo import Repo

from exact_stages.console import UserError, shown, some
from exact_stages.declared import Declared, explained

DVC = (sys.executable, "-m", "dvc")
REPRO = (*DVC, "repro", "--force", "--no-run-cache", "--no-commit", "--single-item")
OF_HOOKS = {"GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_WORK_TREE"}  # they would name the index of the user
RUNNING = b"Running stage '"  # what DVC prints when it starts the command


class Setting(NamedTuple):
    """Where and how a stage runs."""

    place: str
    variables: dict[str, str]
    umask: int
    cores: list[int]


def main(*arguments: str) -> None:
    """Run a stage twice, and as often as wanted with a kill; exit with code 1 if an output differs."""
    parser = argparse.ArgumentParser("exact_stages twice")
    parser.add_argument("stage")
    parser.add_argument("--kill", type=int, default=0, metavar="N", help="more runs that are killed and continued")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the moments of the kills")
    chosen = parser.parse_args(arguments)
    stage = stage_of(Declared(), name := chosen.stage)
    if stage.frozen:
        raise UserError(f"{name}: frozen, so DVC does not run it; `dvc unfreeze {name}` first")
    outs = [relpath(out.fs_path) for out in stage.outs]
    equal = "outputs are equal" if outs else "it has no outputs"
    one, two = settings()
    varied = [f"{key} ({each}, {two.variables[key]})" for key, each in one.variables.items()]
    varied += [f"umask ({one.umask:03o}, {two.umask:03o})", f"cores ({len(one.cores)}, {len(two.cores)})"]
    print(f"{name}: two clones differ in path, {', '.join(varied)}", flush=True)
    lacks = ["language (`locale -a` has none but C)"] * (two.variables["LC_ALL"] == "C")
    if lacks := lacks + ["cores (there is one)"] * (len(one.cores) == 1):
        print(f"{name}: cannot vary {', '.join(lacks)}", flush=True)
    with TemporaryDirectory(prefix="twice-") as folder:
        first, seconds, _ = run(name, one, Path(folder))
        second, _, _ = run(name, two, Path(folder))
        faults = [*differences(first, second, outs)]
        print("\n".join(f"{name}: {each}" for each in faults or [equal]), flush=True)
        chance, fallen = random.Random(chosen.seed), 0
        for part in [chance.random() for _ in range(chosen.kill)]:
            again, _, fell = run(name, one, Path(folder), part * seconds)
            found = [*differences(first, again, outs)]
            shutil.rmtree(again)
            moment = f"{'killed at' if fell else 'ended before'} {part:.3f} of {seconds:.1f} s"
            print(f"{name}: seed {chosen.seed}: {moment}: {'; '.join(found) or equal}", flush=True)
            faults, fallen = faults + found, fallen + fell
    if chosen.kill > 0 and not fallen:
        raise UserError(f"{name}: no kill fell into the run; ask for more than {chosen.kill}")
    sys.exit(bool(faults))


def stage_of(declared: Declared, name: str) -> Any:
    """Return a stage, or an item such as fit@a."""
    if name not in declared.stages:
        raise UserError(f"dvc.yaml: no stage {shown(name)}; name one of {shown(', '.join(declared.stages))}")
    return declared.stages[name]


def settings() -> tuple[Setting, Setting]:
    """Return two settings that differ in all that this machine can vary."""
    cores, listed = sorted(os.sched_getaffinity(0)), ""
    with contextlib.suppress(FileNotFoundError):
        listed = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout
    other = [each for each in listed.split() if each.lower().endswith(("utf8", "utf-8")) and each[:2] != "C."]
    one = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "ONE+12"}
    two = {"PYTHONHASHSEED": "1", "LC_ALL": [*other, "C"][0], "TZ": "TWO-14"}  # at any time, on another day
    return Setting("clone", one, 0o022, cores), Setting("another-clone", two, 0o077, cores[:1])


def run(name: str, setting: Setting, folder: Path, cut: float | None = None) -> tuple[Path, float, bool]:
    """Run a stage in a clone; return where that is then, the seconds of the run, and whether a kill fell into it.

    Args:
        cut: the seconds after which a run is killed, before this one continues it.
    """
    place, log, killed = folder / setting.place, folder / "log", False
    here = cloned(name, place)
    lock = here / "dvc.lock"
    recorded = lock.read_bytes() if lock.exists() else b""
    if cut is not None:
        with started(name, setting, here, log) as process, contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(cut)
        killed = process.returncode == -signal.SIGKILL
        lock.write_bytes(recorded) if recorded else lock.unlink(missing_ok=True)  # DVC may have been writing it
    with started(name, setting, here, log) as process:
        began = time.monotonic()
        process.wait()
    seconds = time.monotonic() - began
    if process.returncode:
        told = "\n  ".join(log.read_text(errors="replace").splitlines()[-15:])
        raise UserError(f"{name}: failed in {place.name}, which has what git lists, and the deps\n  {told}")
    kept = folder / str(time.monotonic_ns())
    os.rename(place, kept)  # the next may run at the same path
    return kept / relpath(here, place), seconds, killed


@contextlib.contextmanager
def started(name: str, setting: Setting, here: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start DVC, wait until it runs the stage, and in the end kill what is left."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*REPRO, stage_of(Declared(), name).addressing],
            cwd=here,
            env=environment(here) | setting.variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=setting.umask,
            preexec_fn=partial(os.sched_setaffinity, 0, setting.cores),
        )
    try:
        while process.poll() is None and RUNNING not in log.read_bytes():
            time.sleep(0.01)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment(here: Path) -> dict[str, str]:
    """Return this environment for a clone: its modules, and no files of DVC outside of it."""
    kept = {key: value for key, value in os.environ.items() if key not in {"DVC_ROOT", "DVC_STAGE", *OF_HOOKS}}
    top, clone = (git("rev-parse", "--show-toplevel", at=each) for each in (Path(), here))
    paths = [f"{each}/".replace(f"{top}/", f"{clone}/", 1)[:-1] for each in kept.get("PYTHONPATH", "").split(":")]
    kept |= {"PYTHONPATH": ":".join(paths)} if "PYTHONPATH" in kept else {}
    return kept | {"DVC_SITE_CACHE_DIR": f"{clone}/.git/dvc", "DVC_NO_ANALYTICS": "1"}


def cloned(name: str, place: Path, whole: bool = False) -> Path:
    """Copy the files that git lists, tracked or not, as they are; and of a stage the deps, and outputs that persist.

    What DVC's cache has of the latter is linked to it, unless root runs; the rest is copied. Return this folder there.

    Args:
        whole: bring all that DVC tracks, not the deps alone, but no outputs of the stage.
    """
    stage, top = stage_of(declared := Declared(), name), Path(git("rev-parse", "--show-toplevel"))
    both = [*stage.outs, *(dep for dep in stage.deps if dep.def_path.startswith("../"))]
    if away := [each.def_path for each in both if not Path(each.fs_path).is_relative_to(top)]:
        fix = "give outs a path in the repository, and deps outside of it an absolute one"
        raise UserError(f"{name}: cannot run in a clone with {some(away)}; {fix}")
    git("clone", "--quiet", "--shared", "--no-checkout", str(top), str(place))
    for file in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", at=top).split("\0")[:-1]:
        if not (top / file).is_relative_to(place.parent):  # TMPDIR may be in the repository
            _copy(top / file, place / file, top)
    git("reset", "--quiet", at=place)
    here, cached = place / relpath(Path.cwd(), top), set[str]()
    with explained(), Repo() as repo:
        needed, own = [*stage.deps, *(out for out in stage.outs if out.persist)], {out.fs_path for out in stage.outs}
        needed += [out for out in repo.index.outs if whole and out.fs_path not in own]
        local = (each.fs_path for each in needed if each.protocol == "local")
        wanted = [relpath(path) for path in local if Path(path).is_relative_to(top)]
        config = place / relpath(repo.root_dir, top) / ".dvc/config.local"
        link = "symlink" if os.geteuid() else "copy"  # root writes through links, which read-only files stop for others
        config.write_text(f"[cache]\n    dir = '''{repo.cache.local_cache_dir}'''\n    type = reflink,{link}\n")
        for path in wanted:
            with contextlib.suppress(OutputNotFoundError):
                outs = repo.find_outs_by_path(os.path.abspath(path), recursive=True, strict=False)
                cached |= {relpath(out.fs_path) for out in outs if out.use_cache and not out.status()}
    if cached:
        subprocess.run([*DVC, "checkout", "--quiet", *cached], cwd=here, env=environment(here), capture_output=True)
    for file in {file for path in wanted for file in declared.files(path)}:
        if not os.path.lexists(here / file):
            _copy(Path(file), here / file, top)
    return here


def _copy(source: Path, target: Path, top: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and not Path(real := os.path.realpath(source)).is_relative_to(top):
        target.symlink_to(real)
    elif source.is_dir() and not source.is_symlink():  # a repository in the repository
        shutil.copytree(source, target, symlinks=True)
    elif os.path.lexists(source):  # git lists deleted files, too
        shutil.copy2(source, target, follow_symlinks=False)


def git(*arguments: str, at: Path = Path()) -> str:
    """Return what git prints."""
    own = {key: value for key, value in os.environ.items() if key not in OF_HOOKS}
    ran = subprocess.run(["git", *arguments], cwd=at, env=own, capture_output=True, text=True, errors="surrogateescape")
    if ran.returncode:
        raise UserError(f"git {arguments[0]}: {shown(ran.stderr.strip())}; a clone needs a git repository")
    return ran.stdout.rstrip("\n")


def differences(one: Path, two: Path, outs: list[str]) -> Iterator[str]:
    """Yield which files of outputs differ between two clones, and where the first does."""
    if away := [out for out in outs if not (one / out).exists() and not (two / out).exists()]:
        yield f"{some(away)} not in the clones; let no absolute path or link lead out of them"
    found = [{relpath(file, clone): file for out in outs for file in _files(clone / out)} for clone in (one, two)]
    pairs = {name: [each[name] for each in found if name in each] for name in {**found[0], **found[1]}}
    other = [name for name, pair in pairs.items() if len(pair) < 2 or not filecmp.cmp(pair[0], pair[1], shallow=False)]
    for name in other[:1]:
        yield f"{name} differs: {place_of(*pairs[name]) if len(pairs[name]) == 2 else 'only one run made it'}"
    if other[1:]:
        yield f"so do {some(other[1:])}"


def _files(out: Path) -> list[Path]:
    return sorted(each for each in out.rglob("*") if each.is_file()) if out.is_dir() else [out] * out.is_file()


def place_of(one: Path, two: Path) -> str:
    """Name the first key, cell, tensor or line that differs."""
    for kind in (one.suffix, ""):
        first, second = parts(one, kind), parts(two, kind)
        for name in {**first, **second}:
            if first.get(name) != second.get(name):
                values = [str(each.get(name, "nothing")) for each in (first, second)]
                same = next((n for n, (a, b) in enumerate(zip(*values, strict=False)) if a != b), 0)
                values = [shown(each[max(0, same - 20) :], 60) for each in values]
                return name if name.startswith("tensor ") else f"{name}: {' and '.join(values)}"
    return "nowhere"


def parts(path: Path, kind: str) -> dict[str, Any]:
    """Return the values of JSON by key, cells of CSV, tensors of safetensors, or of any other file the lines."""
    data = path.read_bytes()
    try:
        match kind:
            case ".json":
                return dict(_keys(json.loads(data, parse_float=str, parse_int=str, parse_constant=str)))  # -0.0, NaN
            case ".csv":
                head, *rows = csv.reader(io.StringIO(data.decode()))
                cells = [(n, *cell) for n, row in enumerate(rows, 1) for cell in zip(head, row, strict=False)]
                return {"columns": head} | {f"row {n}, column {name}": cell for n, name, cell in cells}
            case ".safetensors":
                start = 8 + int.from_bytes(data[:8], "little")
                header = json.loads(data[8:start])
                found = {f"metadata {name}": value for name, value in header.pop("__metadata__", {}).items()}
                ends = {name: [start + end for end in each.pop("data_offsets")] for name, each in header.items()}
                return found | {f"tensor {name}": (header[name], data[slice(*ends[name])]) for name in header}
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError, csv.Error):  # it is no such file
        return {}
    return {f"line {n}": line for n, line in enumerate(data.decode(errors="surrogateescape").split("\n"), 1)}


def _keys(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list) else ()
    yield from [] if pairs else [(name or "all", value)]
    for key, each in pairs:
        yield from _keys(each, f"{name}[{key}]" if isinstance(value, list) else f"{name}.{key}".lstrip("."))
