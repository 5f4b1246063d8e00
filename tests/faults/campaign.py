"""Kill the tiny pipeline at random moments, let it finish, and compare all it leaves with an undisturbed run.

    python -m tests.faults.campaign --kills 100 --seed 0

Every kill is kill -9 of the whole process group of `dvc repro`, or of dvc alone, and sometimes a fault comes with it: a
deleted output, a truncated cache object or state, a clock that jumps. Prints the table of docs/reliability.md.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from dvc_clone import Clone, new_clone, run_pipeline

REPRO = ("dvc", "repro")
OFTEN = {"DDPM_SAVE_SECONDS": "0.2"}  # states are saved all the time
LONGEST = 20  # seconds before a kill


def delete_an_output(clone: Clone, chance: random.Random) -> None:
    """As a careless user does."""
    files = [path for folder in ("data", "models") for path in (clone.path / folder).rglob("*") if path.is_file()]
    if files:
        chance.choice(sorted(files)).unlink()


def cut_a_state(clone: Clone, chance: random.Random) -> None:
    """As a power cut does."""
    files = sorted((clone.path / ".resume").rglob("*.safetensors"))
    if files:
        file = chance.choice(files)
        os.truncate(file, chance.randrange(file.stat().st_size + 1))


def delete_an_object(clone: Clone, chance: random.Random) -> None:
    """As an overeager cleaner does."""
    files = sorted(path for path in (clone.path / ".dvc/cache/files/md5").rglob("*") if path.is_file())
    if files:
        chance.choice(files).unlink()


def jump_the_clock(clone: Clone, chance: random.Random) -> None:
    """Files of tomorrow, as after a clock that ran ahead was set right."""
    later = time.time() + chance.uniform(-86400, 86400)
    for path in [*(clone.path / "data").rglob("*"), *(clone.path / ".resume").rglob("*")]:
        if path.is_file():
            os.utime(path, (later, later))


FAULTS: dict[str, Callable[[Clone, random.Random], None]] = {
    "delete an output": delete_an_output,
    "cut a state": cut_a_state,
    "delete a cache object": delete_an_object,
    "jump the clock": jump_the_clock,
}


def results(clone: Clone) -> dict[str, bytes]:
    """All that a run leaves: the lock, metrics, pictures and artifacts."""
    found = {"dvc.lock": (clone.path / "dvc.lock").read_bytes()}
    for folder in ("metrics", "models", "data"):
        found |= clone.bytes_under(folder)
    return found


def disturbed(
    clone: Clone, kills: int, chance: random.Random, shout: Callable[[str], None]
) -> collections.Counter[str]:
    """Kill so many times, begin anew whenever the pipeline has finished; returns what happened how often."""
    counts: collections.Counter[str] = collections.Counter()
    while counts["kills"] < kills:
        process = clone.start(*REPRO, **OFTEN)
        wait = chance.uniform(0.5, LONGEST)
        try:
            printed, _ = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            alone = chance.random() < 0.25
            os.kill(process.pid, signal.SIGKILL) if alone else os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()  # an orphan that does not die would hold this up
            counts["kills"] += 1
            counts["of dvc alone" if alone else "of the whole group"] += 1
            if chance.random() < 0.3:
                name = chance.choice(sorted(FAULTS))
                FAULTS[name](clone, chance)
                counts[name] += 1
        else:
            if process.returncode:
                raise SystemExit(f"dvc repro failed by itself after {counts['kills']} kills:\n{printed}")
            counts["finished"] += 1
            shutil.rmtree(clone.path / ".dvc/cache", ignore_errors=True)
            for gone in ("data", "models", "metrics", ".resume"):
                shutil.rmtree(clone.path / gone, ignore_errors=True)
            (clone.path / "dvc.lock").unlink()
        counts["resumed"] += printed.count("resuming after")
        shout(f"{counts['kills']} kills, {counts['resumed']} resumed, {counts['finished']} finished")
    return counts


def campaign(folder: Path, kills: int, seed: int, undisturbed: Clone | None = None) -> collections.Counter[str]:
    """Run it; "different" and "lost" count files that are not as in an undisturbed run, or missing."""
    if undisturbed is None:
        (folder / "undisturbed").mkdir()
        undisturbed = new_clone(folder / "undisturbed")
        run_pipeline(undisturbed)
    (folder / "disturbed").mkdir()
    clone = new_clone(folder / "disturbed")
    counts = disturbed(clone, kills, random.Random(seed), lambda line: print(line, file=sys.stderr))
    last = clone.start(*REPRO, **OFTEN)
    printed, _ = last.communicate()
    if last.returncode:
        raise SystemExit(f"the last dvc repro failed:\n{printed}")
    counts["resumed"] += printed.count("resuming after")
    wanted, found = results(undisturbed), results(clone)
    counts["compared files"] = len(wanted)
    lost = wanted.keys() - found.keys()
    different = {name for name, data in found.items() if wanted.get(name) != data}
    counts["lost"], counts["different"] = len(lost), len(different)
    for name in sorted(lost | different):
        print(f"{'lost' if name in lost else 'different'}: {name}", file=sys.stderr)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), options.kills, options.seed)
    print("| what | how often |\n| --- | --- |")
    for name, count in counts.items():
        print(f"| {name} | {count} |")
    if counts["lost"] or counts["different"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
