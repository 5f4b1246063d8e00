"""Run the pipeline with other params in a copy of the workspace, and keep the results in results/NAME.

    python -m scripts.record NAME KEY=VALUE ...

The run becomes the DVC experiment NAME and uses the run cache. results/NAME contains params.yaml, scores and
summaries, one picture, and run.json, which names the commit, command, machine and date.
"""

import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from exact_stages.console import UserError, run
from exact_stages.files import write_json
from scripts.reporting.runs import Run, open_run

RESULTS = Path("results")
KEPT = (  # of a run's files; curves, animations and other pictures are in the experiment
    "params.yaml",
    *(f"metrics/*/{name}.json" for name in ("summary", "scores", "bits", "accuracy", "population")),
    "metrics/draw/by_class.png",
)


def main(name: str, settings: list[str]) -> None:
    """Run the experiment, and keep its results if it succeeds.

    Raises:
        UserError: files are not committed, a stage failed, or a stage is not up to date.
    """
    if subprocess.run(["git", "diff", "--quiet", "HEAD"]).returncode:
        raise UserError("git: files have changed; commit them first, since run.json names the commit")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    fresh = f"{name}-new"  # replaces an earlier experiment after success
    dvc("exp", "remove", "--quiet", fresh, stderr=subprocess.DEVNULL)
    params = [f"--set-param={each}" for each in settings]
    if dvc("exp", "run", "--temp", "--name", fresh, *params) or dvc("exp", "rename", "--force", fresh, name):
        raise UserError(f"{name}: the experiment failed; {RESULTS / name} is unchanged")
    found = open_run(f"refs/exps/{commit[:2]}/{commit[2:]}/{name}")
    if found.left_out:
        raise UserError(f"{found.left_out}; {RESULTS / name} is unchanged")
    keep(found, RESULTS / name, commit, shlex.join(["python", "-m", "scripts.record", name, *settings]))
    print(f"{RESULTS / name}: the results of {name}")


def keep(found: Run, folder: Path, commit: str, command: str) -> None:
    """Write the results of a run; keep other files in the folder, such as README.md."""
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    (folder / "run.json").unlink(missing_ok=True)  # written last: a folder without it is not a record
    for path, data in found.files.items():
        if not any(fnmatch(path, each) for each in KEPT):
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    trained = found.mapping("metrics/train/environment.json")
    facts = {
        "commit": commit,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": ", ".join(trained[key] for key in ("device", "cpu") if trained.get(key, "cpu") != "cpu") or None,
        **{key: trained.get(key) for key in ("torch", "precision")},
        "up_to_date": True,
    }
    write_json(folder / "run.json", facts)


def dvc(*arguments: str, stderr: int | None = None) -> int:
    """Run a DVC command, and return its exit code."""
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], stderr=stderr).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit(__doc__)
    run(partial(main, sys.argv[1], sys.argv[2:]))
