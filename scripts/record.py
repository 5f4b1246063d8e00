"""Run the pipeline with other params, in a copy of the workspace, and keep what it gave in results/NAME.

    python -m scripts.record NAME KEY=VALUE ...

It is the experiment NAME afterwards, and what the run cache already has is not computed again. results/NAME gets
params.yaml, metrics/ and run.json, which says of what commit, by what command, where and when.
"""

import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_json
from scripts.reporting.runs import Run, open_run

RESULTS = Path("results")


def main(name: str, settings: list[str]) -> None:
    """Run the experiment, and keep it if it has succeeded.

    Raises:
        UserError: files are not committed; or a stage failed, or is not up to date with the others.
    """
    if subprocess.run(["git", "diff", "--quiet", "HEAD"]).returncode:
        raise UserError("git: files are not as committed; commit them first, as run.json names the commit that ran")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    fresh = f"{name}-new"  # takes the place of an earlier one once it has succeeded
    dvc("exp", "remove", "--quiet", fresh, stderr=subprocess.DEVNULL)
    params = [f"--set-param={each}" for each in settings]
    if dvc("exp", "run", "--temp", "--name", fresh, *params) or dvc("exp", "rename", "--force", fresh, name):
        raise UserError(f"{name}: the experiment failed; {RESULTS / name} is as it was")
    found = open_run(f"refs/exps/{commit[:2]}/{commit[2:]}/{name}")
    if found.left_out:
        raise UserError(f"{found.left_out}; {RESULTS / name} is as it was")
    keep(found, RESULTS / name, commit, shlex.join(["python", "-m", "scripts.record", name, *settings]))
    print(f"{RESULTS / name}: the results of {name}")


def keep(found: Run, folder: Path, commit: str, command: str) -> None:
    """Write a run whose stages are all up to date; what else is in the folder, such as a README.md, stays."""
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    (folder / "run.json").unlink(missing_ok=True)  # comes last: without it nobody takes the folder for a record
    for path, data in found.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    trained = found.mapping("metrics/train/environment.json")
    facts = {
        "commit": commit,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": ", ".join(trained[key] for key in ("device", "cpu") if trained.get(key, "cpu") != "cpu") or None,
        "torch": trained.get("torch"),
        "up_to_date": True,
    }
    write_json(folder / "run.json", facts)


def dvc(*arguments: str, stderr: int | None = None) -> int:
    """The exit code of a command of DVC."""
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], stderr=stderr).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit(__doc__)
    run(partial(main, sys.argv[1], sys.argv[2:]))
