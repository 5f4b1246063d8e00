"""The check names what a stage's deps lack, and each command that it cannot see through."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

import exact_stages
from exact_stages.commands import check, write
from exact_stages.console import UserError
from exact_stages.twice import git

FILES = {
    "src/lib/__init__.py": '"""No code."""\n# Nor here.\n',
    "src/lib/model.py": "from . import layers\nfrom .. import lib\nimport json",
    "src/lib/layers.py": "def late():\n    from helpers.deep import thing",
    "helpers/deep.py": "x = 1",  # no __init__.py: a namespace
    "stages/__init__.py": "import lib",
    "stages/fit.py": "import lib.model",
    "tools/prepare.py": "import near\nfrom pkg import name",
    "tools/near.py": "x = 1",
    "pkg/__init__.py": "name = 1",
    "pkg/__main__.py": "import pkg",
    "other.py": "x = 1",
    "data/rows.csv": "1,2",
    "params.yaml": "scripts: {prepare: tools/prepare.py}\nnone: []",
    "alone/far.py": "x = 1",
    "uses.py": "import far",
    "a/go.py": "import own",
    "a/own.py": "x = 1",
    "b/go.py": "import own",
    "b/own.py": "x = 1",
}
FIT = ["helpers/deep.py", "src/lib/layers.py", "src/lib/model.py", "stages/__init__.py", "stages/fit.py"]
PREPARE = ["pkg/__init__.py", "tools/near.py", "tools/prepare.py"]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


Checked = Callable[[str], tuple[list[str], list[str]]]


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Checked:
    """Return what the check of a stage prints: the files to add, and what it could not check."""

    def check_it(stage: str) -> tuple[list[str], list[str]]:
        Path("dvc.yaml").write_text(f"vars: [run: exec env A=1]\nstages:\n  it: {stage}\n")
        with pytest.raises(SystemExit) as caught:
            check()
        lines = capsys.readouterr().out.splitlines()
        found = [line.removeprefix("      - ") for line in lines if line.startswith("      - ")]
        unchecked = [line.removeprefix("it: unchecked: ") for line in lines if line.startswith("it: unchecked: ")]
        assert lines[-1] == f"1 stages, {int(bool(found))} with missing deps, {int(bool(unchecked))} unchecked"
        assert bool(caught.value.code) == bool(found)
        return found, unchecked

    return check_it


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("exec env -u B A=$PPID python3 -u -W error -m stages.fit a", FIT),
        (r"${run} sh -c 'exec \${LAUNCH:-python} -m stages.fit'", FIT),
        ("(uv run .venv/bin/python3.11 ${scripts.prepare} --x &> log) 2>&1", PREPARE),
        ("python other.py python -m stages.fit", sorted([*FIT, "other.py"])),
        ("python tools/prepare.py -m fast", PREPARE),
        ("A='b c' python tools/prepare.py; python -m pkg", ["pkg/__init__.py", "pkg/__main__.py", *PREPARE[1:]]),
        ("PYTHONPATH=$PWD/alone:. python uses.py", ["alone/far.py", "uses.py"]),
    ],
)
def test_what_a_command_imports_is_found(command: str, files: list[str], checked: Checked) -> None:
    assert checked(f"\n    cmd: |\n      # it's\n      {command}  # it's") == (files, [])


@pytest.mark.parametrize("command", ["python -c pass", "python no.py", "python -m pytest", "PYTHONPATH=$A python a.py"])
def test_a_python_that_is_not_of_the_project_is_named(command: str, checked: Checked) -> None:
    assert checked(f'{{cmd: ["python other.py && {command}"], deps: [pkg]}}') == (
        ["other.py"],
        [f"cannot follow `{command}`"],
    )


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("cmd: python -m stages.fit, deps: [helpers/, src/lib, stages/__init__.py, stages/fit.py, data, gone.py]", []),
        (
            "foreach: [1], do: {wdir: tools, cmd: python prepare.py, deps: [near.py]}",
            ["../pkg/__init__.py", "prepare.py"],
        ),
        ("cmd: python other.py, params: [{other.py: [x]}], deps: ['https://example.org/other.py']", ["other.py"]),
        ("foreach: [a, b], do: {cmd: 'python ${item}/go.py', deps: ['${item}/go.py']}", ["a/own.py", "b/own.py"]),
        ("matrix: {it: '${none}', by: [1]}, cmd: 'python other.py ${item.it}'", ["other.py"]),
    ],
)
def test_deps_are_files_and_folders_of_all_items(stage: str, missing: list[str], checked: Checked) -> None:
    assert checked(f"{{{stage}}}") == (missing, [])


def test_the_file_of_its_code_stands_for_what_it_lists(checked: Checked) -> None:
    stage = "{cmd: python -m stages.fit, deps: [code/it.txt]}"
    assert checked(stage)[0] == FIT
    write()
    assert checked(stage) == ([], [])
    Path("src/lib/layers.py").write_text("import other")
    assert checked(stage) == (["other.py"], [])


def test_a_file_that_is_no_python_is_named() -> None:
    Path("other.py").write_text("x = ")
    Path("dvc.yaml").write_text("stages: {it: {cmd: [python other.py, ls], deps: [data]}}")
    with pytest.raises(UserError, match=r"^other.py: not valid Python: line 1: "):
        check()


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
    ran = subprocess.run(
        alone,
        env={"DVC_SITE_CACHE_DIR": f"{os.getcwd()}/.dvc", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
