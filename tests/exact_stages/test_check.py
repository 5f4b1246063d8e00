"""The check names what a stage's deps lack, and what it cannot see through; all commands run without pydantic."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

import exact_stages
from exact_stages.commands import check, write
from exact_stages.twice import git

FILES = {
    "src/lib/__init__.py": '"""No code."""\n# Nor here.\n',
    "src/lib/model.py": "from . import layers\nimport json",
    "src/lib/layers.py": "x = 1",
    "fit.py": "import lib.model",
    "other.py": "x = 1",
    "a/go.py": "import own",
    "a/own.py": "x = 1",
    "b/go.py": "import own",
    "b/own.py": "x = 1",
    "data/rows.csv": "1,2",
    "params.yaml": "none: []",
}
FIT = ["fit.py", "src/lib/layers.py", "src/lib/model.py"]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def checked(stage: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The files to add and what is unchecked; its last line and exit code count them."""
    Path("dvc.yaml").write_text(f"stages:\n  it: {stage}\n")
    with pytest.raises(SystemExit) as caught:
        check()
    *lines, last = [line for line in capsys.readouterr().out.splitlines() if line != "it: add to deps"]
    missing, unchecked = (any(line.startswith(each) for line in lines) for each in ("      - ", "it: unchecked: "))
    assert (bool(caught.value.code), last) == (
        missing,
        f"1 stages, {missing:d} with missing deps, {unchecked:d} unchecked",
    )
    return [line.removeprefix("      - ").removeprefix("it: ") for line in lines]


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        ("cmd: python fit.py, deps: [data, gone.py]", FIT),
        ("cmd: python fit.py, deps: [fit.py, src/lib/]", []),
        ("foreach: [1], do: {wdir: a, cmd: python go.py, deps: [own.py]}", ["go.py"]),
        ("cmd: python other.py, params: [{other.py: [x]}], deps: ['https://example.org/other.py']", ["other.py"]),
        ("foreach: [a, b], do: {cmd: 'python ${item}/go.py', deps: ['${item}/go.py']}", ["a/own.py", "b/own.py"]),
        ("matrix: {it: '${none}', by: [1]}, cmd: 'python other.py ${item.it}'", ["other.py"]),
        ("cmd: python -c pass, deps: [other.py]", ["unchecked: cannot follow `python -c pass`"]),
        ("cmd: [python -m pytest, python other.py]", ["other.py", "unchecked: cannot follow `python -m pytest`"]),
        ("cmd: Rscript a.R", ["unchecked: starts no Python"]),
    ],
)
def test_what_deps_lack_is_named(stage: str, found: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(f"{{{stage}}}", capsys) == found


def test_the_file_of_its_code_stands_for_what_it_lists(capsys: pytest.CaptureFixture[str]) -> None:
    stage = "{cmd: python fit.py, deps: [code/it.txt]}"
    assert checked(stage, capsys) == FIT
    write()
    capsys.readouterr()
    assert checked(stage, capsys) == []
    Path("src/lib/layers.py").write_text("import other")
    assert checked(stage, capsys) == ["other.py"]


@pytest.mark.parametrize("command", ["check", "trace it", "code", "code --check", "why"])
def test_the_package_alone_runs_without_what_only_stages_need(command: str) -> None:
    shutil.copytree(Path(exact_stages.__file__).parent, "exact_stages")
    Path("dvc.yaml").write_text(f"stages: {{it: {{cmd: {sys.executable} other.py, deps: [other.py]}}}}")
    if "code" in command:
        write()
    git("init", "--quiet")
    Repo.init().close()
    absent = "import runpy, sys; sys.modules |= dict.fromkeys(('filelock', 'pydantic', 'pydantic_core'))"
    alone = [sys.executable, "-c", f"{absent}; runpy.run_module('exact_stages', run_name='__main__')", *command.split()]
    variables = {"DVC_SITE_CACHE_DIR": f"{os.getcwd()}/.dvc", "PATH": os.environ["PATH"]}
    ran = subprocess.run(alone, env=variables, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
