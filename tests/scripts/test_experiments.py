"""The script that runs a list of experiments under Slurm; here without Slurm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DVC_YAML = "stages: {one: {cmd: cp params.yaml out.txt, params: [x], outs: [out.txt]}}\n"


def variables(folder: Path) -> dict[str, str]:
    """Return an environment in which sbatch prints what it gets, and DVC keeps its files in a folder."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/sbatch").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (folder / "bin/sbatch").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "GIT_", "DVC_"))}
    return kept | {
        "PATH": path,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one stage, with remotes in folders beside it that it names by relative paths."""
    made = tmp_path / "a project"
    (made / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/experiments.sh", made / "scripts")
    (made / "dvc.yaml").write_text(DVC_YAML)
    (made / "params.yaml").write_text("x: 1\n")
    (made / ".gitignore").write_text("/build\n/out.txt\n")
    for command in (
        "git init --quiet --initial-branch main",
        "git config user.name Test",
        "git config user.email test@example.org",
        "git init --quiet --bare ../origin",
        "git remote add origin ../origin",
        "dvc init --quiet",
        "dvc remote add --quiet --default storage ../storage",
        "dvc remote modify --local storage verify true",
        "git add --all",
        "git commit --quiet --message project",
    ):
        subprocess.run(command.split(), cwd=made, env=variables(tmp_path), check=True)
    return made


def experiments(project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(project / "scripts/experiments.sh"), *arguments]
    return subprocess.run(command, cwd=project, env=variables(project.parent) | more, capture_output=True, text=True)


def test_a_list_becomes_arguments_of_sbatch(project: Path) -> None:
    (project / "list.txt").write_text("# which\n\n  one -S x=2\r\n\ttwo\t-S 'x=a b'\n # no\nthree")
    printed = experiments(project, "list.txt", "--gpus", "1").stdout.splitlines()
    assert printed[0] == "--array=1-3"
    assert printed[-3:] == ["one -S x=2", "two\t-S 'x=a b'", "three"]


WRONG = ("", "# none\n", "one\none -S x=2\n", "-S x=2\n", "a/b -S x=2\n", "one -S 'x=2\n", "one\ttwo\nx: 1\n")


def test_a_wrong_list_is_not_submitted(project: Path) -> None:
    for listed in WRONG:
        (project / "list.txt").write_text(listed)
        ended = experiments(project, "list.txt")
        assert (ended.returncode, ended.stdout) == (1, ""), listed
        assert ended.stderr.startswith("error: list.txt")
        assert ended.stderr.count("\n") == 1
    assert not (project / "build").exists()


@pytest.mark.parametrize("lost", ["git remote remove origin", "rm .dvc/config .dvc/config.local", "elsewhere"])
def test_where_its_results_have_no_place_nothing_is_submitted(project: Path, lost: str) -> None:
    (project / "list.txt").write_text("one\n")
    if lost != "elsewhere":
        subprocess.run(lost.split(), cwd=project, check=True)
    command = ["bash", str(project / "scripts/experiments.sh"), str(project / "list.txt")]
    folder = project / "scripts" if lost == "elsewhere" else project
    ended = subprocess.run(command, cwd=folder, env=variables(project.parent), capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1), ended.stderr


def test_a_task_pushes_to_remotes_of_relative_paths(project: Path) -> None:
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_SUBMIT_DIR": str(project)}
    ended = experiments(project, "HEAD", "one", "two -S x=2", **task)
    assert ended.returncode == 0, ended.stderr
    stored = [path.read_text() for path in (project.parent / "storage/files").rglob("*") if path.is_file()]
    assert stored == ["x: 2\n"]
    listed = subprocess.run(["git", "-C", project.parent / "origin", "for-each-ref"], capture_output=True, text=True)
    assert listed.stdout.split()[-1].endswith("/two")
    assert not [*(project / "build/experiments").iterdir()]
    # No later list of the same commit overwrites it.
    for names, code in (("two -S x=3\nthree\n", 1), ("one\ntw\n", 0)):
        (project / "list.txt").write_text(names)
        ended = experiments(project, "list.txt")
        assert (ended.returncode, ended.stdout == "", ended.stderr.count("\n")) == (code, bool(code), code), (
            ended.stderr
        )
