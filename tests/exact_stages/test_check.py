"""The check names what a stage's deps lack and have too much, and each command that it cannot see through."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

import exact_stages
from exact_stages.check import Found, check, main
from exact_stages.commands import write
from exact_stages.console import UserError

FILES = {
    "src/lib/__init__.py": '"""No code."""\n# Nor here.\n',
    "src/lib/model.py": "from . import layers\nfrom .. import lib\nimport numpy, json",
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
    "mixed/a.csv": "1,2",
    "mixed/stray.py": "x = 1",
    "alone/far.py": "x = 1",
    "uses.py": "import far",
    "star.py": "from stars import *",
    "stars/__init__.py": '__all__: list[str] = [\n    "one",\n    "two",\n]\nname = 1',
    "stars/one.py": "x = 1",
    "stars/two.py": "x = 1",
    "import_module.py": "from importlib import import_module\nimport_module('pkg')",
    "a/go.py": "import own",
    "a/own.py": "x = 1",
    "b/go.py": "import own",
    "b/own.py": "x = 1",
    "empty.py": "",
}
MAKE = "{cmd: cp a made.py, outs: [made.py, gen]}"
FIT = ["helpers/deep.py", "src/lib/layers.py", "src/lib/model.py", "stages/__init__.py", "stages/fit.py"]
PREPARE = ["pkg/__init__.py", "tools/near.py", "tools/prepare.py"]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def checked(stage: str) -> Found:
    Path("dvc.yaml").write_text(f"vars: [run: exec env A=1]\nstages:\n  make: {MAKE}\n  it: {stage}\n")
    return check(Path("dvc.yaml"))["it"]


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("exec env -u B A=$PPID python3 -u -W error -m stages.fit a", FIT),
        (r"${run} sh -c 'exec \${LAUNCH:-python} -m stages.fit'", FIT),
        ("(uv run .venv/bin/python3.11 ${scripts.prepare} --x &> log) 2>&1", PREPARE),
        ("python other.py python -m stages.fit", sorted([*FIT, "other.py"])),
        ("python tools/prepare.py -m fast", PREPARE),
        ("A='b c' python tools/prepare.py; python -m pkg", ["pkg/__init__.py", "pkg/__main__.py", *PREPARE[1:]]),
    ],
)
def test_what_a_command_imports_is_found(command: str, files: list[str]) -> None:
    assert checked(f"\n    cmd: |\n      # it's\n      {command}  # it's") == (files, [], [])


@pytest.mark.parametrize("command", ["Rscript a.R", "python -c pass", "python no.py", "python -m pytest", "cp a 'b c'"])
def test_what_is_no_python_of_the_project_is_named(command: str) -> None:
    assert checked(f'{{cmd: ["python other.py && {command}"], deps: [pkg]}}') == (["other.py"], [], [command])
    assert checked('{cmd: "python other.py \' open"}')[2]


def test_deps_are_files_and_folders_and_what_is_no_code_is_left_alone() -> None:
    deps = "[helpers/, src/lib, stages/__init__.py, stages/fit.py, pkg, other.py, data, gone.py]"
    assert checked(f"{{cmd: python -m stages.fit, deps: {deps}}}") == ([], ["gone.py", "other.py", "pkg"], [])
    stage = "{foreach: [1], do: {wdir: tools, cmd: python prepare.py, deps: [near.py]}}"
    assert checked(stage) == (["../pkg/__init__.py", "prepare.py"], [], [])


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("cmd: python -m pkg, deps: [pkg, src/lib]", ["NEEDLESS src/lib"]),
        ("cmd: python other.py, deps: [other.py, made.py, gen/a.py, gen]", []),
        ("cmd: python other.py --at=tools/near.py pkg, deps: [other.py, tools/near.py, ./pkg/]", []),
        ("cmd: python other.py, deps: [other.py, mixed, 'https://example.org/a.py']", []),
        ("cmd: python other.py, params: [{other.py: [x]}]", ["other.py"]),
        ("cmd: PYTHONPATH=alone python other.py && python uses.py, deps: [other.py, uses.py]", []),
        ("cmd: PYTHONPATH=alone python uses.py, deps: [uses.py]", ["alone/far.py"]),
        ("cmd: 'PYTHONPATH=$PWD/alone:. python uses.py', deps: [uses.py]", ["alone/far.py"]),
        (
            "cmd: 'PYTHONPATH=$A:alone python uses.py', deps: [uses.py, alone]",
            ["UNCHECKED PYTHONPATH=$A:alone python uses.py"],
        ),
        ("cmd: python star.py, deps: [star.py, stars/__init__.py]", ["stars/one.py", "stars/two.py"]),
        ("cmd: python import_module.py, deps: [import_module.py, pkg]", []),
        ("foreach: [a, b], do: {cmd: 'python ${item}/go.py', deps: ['${item}/go.py']}", ["a/own.py", "b/own.py"]),
        ("matrix: {it: [a, b]}, cmd: 'python ${item.it}/go.py', deps: ['${item.it}', other.py]", ["NEEDLESS other.py"]),
        ("matrix: {it: '${none}', by: [1]}, cmd: 'python other.py ${item.it}'", ["other.py"]),
        ("foreach: '${none}', do: {cmd: 'python ${item.file}'}", ["UNCHECKED what an empty list would run"]),
    ],
)
def test_what_is_missing_and_what_is_needless(stage: str, missing: list[str]) -> None:
    found, needless, unchecked = checked(f"{{{stage}}}")
    titled = [f"NEEDLESS {each}" for each in needless] + [f"UNCHECKED {each}" for each in unchecked]
    assert [*found, *titled] == missing


@pytest.mark.parametrize(
    ("script", "config"),
    [
        ("import sys; sys.path.append('alone'); import far_away", ""),  # no folder that is known has it
        ("import os; os.system(' '.join(open('config.yaml')))", ""),
        ("open('config.yaml')", "model: {_target_: alone.far.Model}"),
        ("open('config.yaml')", "[alone/far.py]"),
    ],
)
def test_no_dep_is_to_be_removed_where_other_code_may_run(script: str, config: str) -> None:
    Path("uses.py").write_text(script)
    Path("config.yaml").write_text(config)
    assert checked("{cmd: python uses.py, deps: [uses.py, config.yaml, alone/far.py]}") == ([], [], [])


def test_imports_for_types_and_of_standard_modules_need_no_dep() -> None:
    Path("src/queue.py").touch()
    Path("uses.py").write_text("import queue, typing\nif typing.TYPE_CHECKING:\n    import other\n")
    assert checked("{cmd: python uses.py, deps: [uses.py]}") == ([], [], [])


def test_the_file_of_its_code_stands_for_what_it_lists() -> None:
    stage = "{cmd: python -m stages.fit, deps: [code/it.txt]}"
    assert checked(stage)[0] == FIT
    write()
    assert checked(stage) == ([], [], [])
    Path("src/lib/layers.py").write_text("import other")
    assert checked(stage) == (["other.py"], [], [])


def right() -> bool:
    with pytest.raises(SystemExit) as caught:
        main(Path("dvc.yaml"))
    return not caught.value.code


def test_the_command_prints_lines_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    Path("dvc.yaml").write_text("stages: {it: {cmd: [python other.py, ls], deps: [data]}}")
    assert not right()
    assert capsys.readouterr().out.split("\n")[1] == "      - other.py"
    Path("other.py").write_text("x = ")
    with pytest.raises(UserError, match=r"^other.py: not valid Python: line 1: "):
        main(Path("dvc.yaml"))


@pytest.mark.parametrize("command", ["check", "trace it", "code", "code --check", "why"])
def test_the_package_alone_runs_without_what_only_stages_need(command: str) -> None:
    shutil.copytree(Path(exact_stages.__file__).parent, "exact_stages")
    Path("dvc.yaml").write_text(f"stages: {{it: {{cmd: {sys.executable} other.py, deps: [other.py]}}}}")
    if "code" in command:
        write()
    Repo.init(no_scm=True).close()
    absent = "import runpy, sys; sys.modules |= dict.fromkeys(('filelock', 'pydantic', 'pydantic_core'))"
    alone = [sys.executable, "-c", f"{absent}; runpy.run_module('exact_stages', run_name='__main__')", *command.split()]
    ran = subprocess.run(alone, env={"DVC_SITE_CACHE_DIR": os.getcwd()}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
