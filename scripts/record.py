"""Run the pipeline with other params in a copy of the workspace, and keep the results in results/NAME.

    python -m scripts.record NAME KEY=VALUE ...

The run becomes the DVC experiment NAME and uses the run cache. results/NAME contains params.yaml, a picture of samples,
and record.json, with commit, command, date, machine, the hash of the images, and all metrics. An earlier experiment of
that name is replaced after success.
"""

import os
import secrets
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from dvc.repo import Repo

from exact_stages.console import UserError, run
from exact_stages.files import write_json
from scripts.runs import RECORD, RECORDED, Run, open_run

RESULTS = Path("results")


def main(name: str, settings: list[str]) -> None:
    """Run the experiment, and keep its results if it succeeds.

    Raises:
        UserError: files are not committed, or a stage failed.
    """
    check_committed()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    fresh = f"{name}-{secrets.token_hex(4)}"  # no experiment of the user
    params = [f"--set-param={each}" for each in settings]
    if dvc("exp", "run", "--temp", "--name", fresh, *params) or dvc("exp", "rename", "--force", fresh, name):
        raise UserError(f"{name}: the experiment failed; {RESULTS / name} is unchanged")
    found = open_run(f"refs/exps/{commit[:2]}/{commit[2:]}/{name}")
    keep(found, RESULTS / name, commit, command_of(name, settings))
    print(f"{RESULTS / name}: the results of {name}")


def command_of(name: str, settings: list[str]) -> str:
    """Return the command of a record, with the precision that was asked for."""
    precision = os.environ.get("DDPM_PRECISION")
    asked = [f"DDPM_PRECISION={precision}"] if precision else []
    return shlex.join([*asked, "python", "-m", "scripts.record", name, *settings])


def check_committed() -> None:
    """Check that the commit has all that the run reads.

    Raises:
        UserError: files that git or DVC tracks have changed.
    """
    changed = ["git", "diff", "--name-only", "HEAD", "--", ".", ":!metrics"]  # `dvc checkout` deletes metrics there
    if names := subprocess.run(changed, check=True, capture_output=True, text=True).stdout.splitlines():
        raise UserError(f"{names[0]}: has changed; commit it first, since record.json names the commit")
    with Repo(".") as repo:
        data = {stage.relpath: stage.outs[0] for stage in repo.index.stages if stage.is_data_source}
        for name, out in data.items():
            if "modified" in out.status().values():
                raise UserError(f"{out}: has changed; run dvc add {out}, and commit {name}")


def keep(found: Run, folder: Path, commit: str, command: str) -> None:
    """Write the results of a run; keep other files in the folder, such as README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # written last: a folder without it is not a record
    for name, path in RECORDED.items():
        if path in found.files:
            (folder / name).write_bytes(found.files[path])
    metrics = [path for path in sorted(found.files) if path.startswith("metrics/") and path.endswith(".json")]
    trained = found.mapping("metrics/train/environment.json")
    cpu = trained.get("cpu") or torch.cpu.get_capabilities().get("cpu_name")  # no portable result names it
    facts = {
        "commit": commit,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "data": found.hashes.get(found.flat("params.yaml").get("data.set", "")),
        "machine": ", ".join(each for each in (trained.get("device"), cpu) if each and each != "cpu"),
        "metrics": {path.removeprefix("metrics/").removesuffix(".json"): found.mapping(path) for path in metrics},
    }
    write_json(folder / RECORD, facts)


def dvc(*arguments: str) -> int:
    """Run a DVC command, and return its exit code."""
    return subprocess.run([sys.executable, "-m", "dvc", *arguments]).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit(__doc__)
    run(partial(main, sys.argv[1], sys.argv[2:]))
