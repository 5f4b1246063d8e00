"""Kill the tiny pipeline at random moments, damage what it leaves, and compare its end with an undisturbed run.

    python -m tests.faults.campaign --kills 100 --seed 0

Every kill is kill -9 of the whole process group of `dvc repro`, or of dvc alone, or Ctrl-C; half of them come in the
first seconds. Before some of them params are edited, and put back behind them; after others the pipeline is begun with
other params at once, beside what may be left of the killed one. Behind some comes damage: a deleted output, a corrupted
cache object, a cut state, a cut file of DVC's locks, a clock that jumps. Between them the pipeline runs on a full disk
or with a read-only folder, where the user may mount a file system (root on Linux). Prints a table.
"""

import argparse
import collections
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.with_dvc.dvc_clone import SECONDS, STAGES, Clone, new_clone, run_pipeline

OFTEN = {"DDPM_SAVE_SECONDS": "0.2"}  # states are saved all the time
MEAN_WAIT = (
    6  # seconds before a kill, exponentially distributed: short ones hit dvc's own work, long ones the last stages
)
DISK_SIZE = "2g"
ALONE, CTRL_C, EDIT, OTHER, DAMAGE, CONDITION = 0.25, 0.2, 0.15, 0.2, 0.35, 0.1  # chances of each, for a kill or a run
EARLY = 4  # seconds: dvc's start, and the imports and first steps of a stage
OTHER_PARAMS = {"train.seed": 5, "classifier.seed": 5, "forward_diffusion.seed": 5, "likelihood.seed": 5}


def delete_an_output(clone: Clone, chance: random.Random) -> None:
    """As a careless user does."""
    files = [path for folder in ("data", "models") for path in (clone.path / folder).rglob("*") if path.is_file()]
    if files := [path for path in files if path.name != "README.md"]:
        chance.choice(sorted(files)).unlink()


def cut_a_state(clone: Clone, chance: random.Random) -> None:
    """As a power cut does."""
    files = sorted((clone.path / ".resume").rglob("*.safetensors"))
    if files:
        file = chance.choice(files)
        os.truncate(file, chance.randrange(file.stat().st_size + 1))


def delete_an_object(clone: Clone, chance: random.Random) -> None:
    """As an overeager cleaner does."""
    if objects := cached(clone):
        chance.choice(objects).unlink()


def corrupt_an_object(clone: Clone, chance: random.Random) -> None:
    """As a bad disk does, so that DVC cannot see it; then do what `make verify` says."""
    if not (objects := [path for path in cached(clone) if path.stat().st_size]):
        return
    path = chance.choice(objects)
    before, data = path.stat(), bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if (clone.path / "dvc.lock").exists():
        printed = clone.run("python", "-m", "scripts.verify", code=1)
        assert f"{path.relative_to(clone.path)}: damaged; delete it" in printed, printed
    path.unlink()


def cut_the_lock_of_dvc(clone: Clone, chance: random.Random) -> None:
    """As a kill does while DVC writes it, after which every dvc command fails; then do what `make verify` says."""
    path = clone.path / ".dvc/tmp/rwlock"
    if path.parent.exists() and (clone.path / "dvc.lock").exists():
        path.write_text('{"'[: chance.randrange(3)])
        printed = clone.run("python", "-m", "scripts.verify", code=1)
        assert ".dvc/tmp/rwlock" in printed, printed
        assert "delete it" in printed, printed
        path.unlink()


def jump_the_clock(clone: Clone, chance: random.Random) -> None:
    """Files of tomorrow, as after a clock that ran ahead was set right."""
    later = time.time() + chance.uniform(-86400, 86400)
    for path in [*(clone.path / "data").rglob("*"), *(clone.path / ".resume").rglob("*")]:
        if path.is_file():
            os.utime(path, (later, later))


def cached(clone: Clone) -> list[Path]:
    """The objects in the cache."""
    return sorted(path for path in (clone.path / ".dvc/cache/files/md5").rglob("*") if path.is_file())


@contextlib.contextmanager
def full_disk(clone: Clone, chance: random.Random) -> Iterator[None]:
    """All but a kilobyte to 64 MiB of the disk is taken."""
    filler = clone.path.parent / "filler"
    try:
        with filler.open("wb") as file:
            free = shutil.disk_usage(clone.path).free
            os.posix_fallocate(file.fileno(), 0, max(1, free - int(2 ** chance.uniform(10, 26))))
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only_folder(clone: Clone, chance: random.Random) -> Iterator[None]:
    """One of the folders that the pipeline writes to is mounted read-only."""
    folder = clone.path / chance.choice([".resume", ".dvc/cache", "data", "metrics", "models"])
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


DAMAGES: dict[str, Callable[[Clone, random.Random], None]] = {
    "an output deleted": delete_an_output,
    "a state cut": cut_a_state,
    "a cache object deleted": delete_an_object,
    "a cache object corrupted": corrupt_an_object,
    "the lock file of DVC cut": cut_the_lock_of_dvc,
    "the clock moved": jump_the_clock,
}
CONDITIONS = {"runs on a full disk": full_disk, "runs with a read-only folder": read_only_folder}
ROWS = (
    *("kills", "of the whole group", "of dvc alone", "by Ctrl-C", "between stages"),
    *(f"during {stage}" for stage in STAGES),
    *("with params edited before", "of which ended by themselves, refused", "begun with other params at once"),
    *(*DAMAGES, *CONDITIONS, "of which ended with an error", "tracebacks", "dvc.lock left half written, deleted"),
    *("training or sampling went on from a state", "the pipeline finished and began from nothing"),
    *("comparisons of all files", "files lost", "files different"),
)


@contextlib.contextmanager
def disk_of_its_own(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder`, if the user may; says whether there is one."""
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "campaign", folder], capture_output=True
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


def results(clone: Clone) -> dict[str, bytes]:
    """All that a run leaves: the lock, metrics, pictures and artifacts."""
    found = {"dvc.lock": (clone.path / "dvc.lock").read_bytes()}
    for folder in ("metrics", "models", "data"):
        found |= clone.bytes_under(folder)
    return {name: data for name, data in found.items() if not re.search(r"/\.[\w-]{22}\.tmp$", name)}  # a killed DVC's


def begin_from_nothing(clone: Clone) -> None:
    clone.git("clean", "-ffdxq")  # cache, artifacts, metrics, states and the lock: git has none of them
    clone.git("checkout", "--quiet", ".")


class Campaign(NamedTuple):
    """A clone that is disturbed, what an undisturbed one has, and what happened how often."""

    clone: Clone
    wanted: dict[str, bytes]
    chance: random.Random
    counts: collections.Counter[str]

    def compare(self) -> None:
        """Count the files that are missing, or not as in the undisturbed run, and name them."""
        found = results(self.clone)
        lost = self.wanted.keys() - found.keys()
        different = {name for name, data in found.items() if self.wanted.get(name) != data}
        self.counts.update({"comparisons of all files": 1, "files lost": len(lost), "files different": len(different)})
        for name in sorted(lost | different):
            print(f"{'lost' if name in lost else 'different'}: {name}", file=sys.stderr)

    def run(self) -> "subprocess.Popen[str]":
        return self.clone.start("dvc", "repro", **OFTEN)

    def note(self, printed: str) -> None:
        """What one run has printed."""
        self.counts["training or sampling went on from a state"] += printed.count("resuming after")
        if "Traceback" in printed:
            self.counts["tracebacks"] += 1
            print(printed, file=sys.stderr)

    def finish(self, process: "subprocess.Popen[str]", printed: str) -> str:
        """After a run that was not killed: it must have succeeded, or met a lock that DVC had left half written.

        Of that, `make verify` must say how to mend it: no commit here has a lock, so it is deleted.
        """
        if process.returncode and re.search(r"'\./dvc\.lock' (validation failed|is invalid)", printed):
            advice = self.clone.run("python", "-m", "scripts.verify", code=1)
            assert "delete it" in advice, advice
            (self.clone.path / "dvc.lock").unlink()
            self.counts["dvc.lock left half written, deleted"] += 1
        elif process.returncode:
            raise SystemExit(f"dvc repro failed by itself after {self.counts['kills']} kills:\n{printed}")
        else:
            self.counts["the pipeline finished and began from nothing"] += 1
            self.compare()
            begin_from_nothing(self.clone)
        return printed


def run_and_kill(at: Campaign) -> str:
    """Run until the kill, or the end if that comes first; returns what was printed."""
    process = at.run()
    wait = at.chance.choice([at.chance.expovariate(1 / MEAN_WAIT), at.chance.uniform(0, EARLY)])
    edited = at.chance.random() < EDIT
    try:
        if edited:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            at.clone.edit_params(OTHER_PARAMS)
            wait = at.chance.expovariate(1 / MEAN_WAIT)
            at.counts["with params edited before"] += 1
        printed, _ = process.communicate(timeout=wait)
    except subprocess.TimeoutExpired:
        how = at.chance.random()
        alone, number = how < ALONE, signal.SIGINT if how > 1 - CTRL_C else signal.SIGKILL
        os.kill(process.pid, number) if alone else os.killpg(process.pid, number)
        if alone and at.chance.random() < OTHER:
            process.wait()
            begin_with_other_params(at)
        printed, _ = process.communicate(timeout=SECONDS)  # an orphan holds this up until it ends
        at.clone.git("checkout", "--quiet", "params.yaml")
        running = re.findall(r"^Running stage '([^']+)'|^(Updating) lock", printed, re.MULTILINE)
        at.counts["kills"] += 1
        at.counts["of dvc alone" if alone else "by Ctrl-C" if number == signal.SIGINT else "of the whole group"] += 1
        at.counts[f"during {running[-1][0]}" if running and running[-1][0] else "between stages"] += 1
        if at.chance.random() < DAMAGE:
            name = at.chance.choice(sorted(DAMAGES))
            DAMAGES[name](at.clone, at.chance)
            at.counts[name] += 1
        return printed
    if edited:
        at.clone.git("checkout", "--quiet", "params.yaml")
        at.counts["of which ended by themselves, refused"] += process.returncode != 0
        return printed
    return at.finish(process, printed)


def begin_with_other_params(at: Campaign) -> None:
    """As an impatient user does, while the killed one's stage may still be at work; and kill that, too."""
    at.clone.edit_params(OTHER_PARAMS)
    process = at.run()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(at.chance.uniform(0, 2 * EARLY))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    at.note(process.communicate(timeout=SECONDS)[0])
    at.counts["begun with other params at once"] += 1


def run_under(name: str, at: Campaign) -> str:
    """Run to the end under a condition that may make it fail."""
    with CONDITIONS[name](at.clone, at.chance):
        process = at.run()
        printed, _ = process.communicate(timeout=SECONDS)
    at.counts[name] += 1
    if process.returncode:
        at.counts["of which ended with an error"] += 1
        return printed
    return at.finish(process, printed)


def campaign(folder: Path, kills: int, seed: int, undisturbed: Clone | None = None) -> collections.Counter[str]:
    """Run it; every end of the pipeline, and the last above all, is compared with an undisturbed run."""
    if undisturbed is None:
        (folder / "undisturbed").mkdir()
        undisturbed = new_clone(folder / "undisturbed")
        run_pipeline(undisturbed)
    (folder / "disturbed").mkdir()
    with disk_of_its_own(folder / "disturbed") as mounted:
        counts = collections.Counter(dict.fromkeys(ROWS, 0))
        at = Campaign(new_clone(folder / "disturbed"), results(undisturbed), random.Random(seed), counts)
        while counts["kills"] < kills:
            if mounted and at.chance.random() < CONDITION:
                at.note(run_under(at.chance.choice(sorted(CONDITIONS)), at))
            else:
                at.note(run_and_kill(at))
            print(f"{counts['kills']} kills", file=sys.stderr)
        ends = counts["comparisons of all files"]
        while counts["comparisons of all files"] == ends:
            last = at.run()
            printed, _ = last.communicate(timeout=SECONDS)
            at.note(at.finish(last, printed))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), options.kills, options.seed)
    print("| what | how often |\n| --- | --- |")
    for name in ROWS:
        print(f"| {name} | {counts[name]} |")
    if counts["files lost"] or counts["files different"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
