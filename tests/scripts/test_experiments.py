"""The script that runs a list of experiments under Slurm; here without Slurm."""

import os
import shutil
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import ROOT, Clone, environment, identify

SCRIPT = "scripts/experiments.sh"
FILES = {
    "dvc.yaml": "stages: {one: {cmd: cp params.yaml out.txt, params: [x], outs: [out.txt]}}\n",
    "params.yaml": "x: 1\n",
    ".gitignore": "/build\n/out.txt\n",
    "../bin/sbatch": '#!/bin/sh\nprintf "%s\\n" "$@"\n',  # prints what it gets
}


@pytest.fixture
def project(tmp_path: Path) -> Clone:
    """A project of one stage, with remotes in folders beside it that it names by relative paths."""
    made = Clone(tmp_path / "a project")
    for folder in (made.path / "scripts", tmp_path / "bin"):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, made.path / "scripts")
    for name, text in FILES.items():
        (made.path / name).write_text(text)
    (tmp_path / "bin/sbatch").chmod(0o755)
    made.git("init", "--quiet", "--initial-branch", "main")
    identify(made)
    made.git("init", "--quiet", "--bare", "../origin")
    made.git("remote", "add", "origin", "../origin")
    made.dvc("init", "--quiet")
    made.dvc("remote", "add", "--quiet", "--default", "storage", "../storage")
    made.dvc("remote", "modify", "--local", "storage", "verify", "true")
    made.commit()
    return made


def experiments(project: Clone, *arguments: str, code: int = 0, **more: str) -> str:
    """What the script prints; if it ends with an error, one line."""
    scratch = project.path.parent
    path = f"{scratch / 'bin'}{os.pathsep}{environment(scratch)['PATH']}"
    printed = project.run("bash", SCRIPT, *arguments, code=code, PATH=path, **more)
    assert not code or (printed.startswith("error: ") and printed.count("\n") == 1), printed
    return printed


def test_a_list_becomes_arguments_of_sbatch(project: Clone) -> None:
    (project.path / "list.txt").write_text("# which\n\n  one -S x=2\r\n\ttwo\t-S 'x=a b'\n # no\nthree")
    printed = experiments(project, "list.txt", "--gpus", "1").splitlines()
    assert printed[0] == "--array=1-3"
    assert printed[-3:] == ["one -S x=2", "two\t-S 'x=a b'", "three"]


WRONG = ("", "# none\n", "one\none -S x=2\n", "-S x=2\n", "a/b -S x=2\n", "one -S 'x=2\n", "one\ttwo\nx: 1\n")


def test_a_wrong_list_is_not_submitted(project: Clone) -> None:
    for listed in WRONG:
        (project.path / "list.txt").write_text(listed)
        assert experiments(project, "list.txt", code=1).startswith("error: list.txt"), listed
    assert not (project.path / "build").exists()


@pytest.mark.parametrize("lost", ["git remote remove origin", "rm .dvc/config .dvc/config.local"])
def test_where_its_results_have_no_place_nothing_is_submitted(project: Clone, lost: str) -> None:
    (project.path / "list.txt").write_text("one\n")
    project.run(*lost.split())
    experiments(project, "list.txt", code=1)


def test_a_task_pushes_to_remotes_of_relative_paths(project: Clone) -> None:
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_SUBMIT_DIR": str(project.path)}
    experiments(project, "HEAD", "one", "two -S x=2", **task)
    stored = [path.read_text() for path in (project.path.parent / "storage/files").rglob("*") if path.is_file()]
    assert stored == ["x: 2\n"]
    assert project.run("git", "-C", "../origin", "for-each-ref").split()[-1].endswith("/two")
    assert not [*(project.path / "build/experiments").iterdir()]
    # No later list of the same commit overwrites it.
    for names, code in (("two -S x=3\nthree\n", 1), ("one\ntw\n", 0)):
        (project.path / "list.txt").write_text(names)
        experiments(project, "list.txt", code=code)
