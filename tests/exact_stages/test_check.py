"""The check names what a stage's deps lack and have too much, and each command that it cannot see through."""

from pathlib import Path

import pytest

from exact_stages.check import Found, check, main
from exact_stages.console import UserError

FILES = {
    "src/lib/__init__.py": "",
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
    "params.yaml": "scripts: {prepare: tools/prepare.py}\n",
}
FIT = ["helpers/deep.py", "src/lib/layers.py", "src/lib/model.py", "stages/__init__.py", "stages/fit.py"]
PREPARE = ["pkg/__init__.py", "tools/near.py", "tools/prepare.py"]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def checked(stage: str) -> Found:
    Path("dvc.yaml").write_text(f"vars: [run: exec env A=1]\nstages:\n  it: {stage}\n")
    return check(Path("dvc.yaml"))["it"]


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("exec env -u B A=$PPID python3 -u -W error -m stages.fit a", FIT),
        (r"${run} sh -c 'exec \${LAUNCH:-python} -m stages.fit ${item.x}'", FIT),
        ("(uv run .venv/bin/python3.11 ${scripts.prepare} --x &> log) 2>&1", PREPARE),
        ("python other.py python -m stages.fit", sorted([*FIT, "other.py"])),
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
    deps = "[helpers/, src/lib, stages/__init__.py, stages/fit.py, pkg, other.py, data, '${item}']"
    assert checked(f"{{cmd: python -m stages.fit, deps: {deps}}}") == ([], ["pkg", "other.py"], [])
    stage = "{foreach: [1], do: {wdir: tools, cmd: python prepare.py, deps: [near.py]}}"
    assert checked(stage) == (["../pkg/__init__.py", "prepare.py"], [], [])


def test_the_command_prints_lines_to_paste(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["exact_stages", "check"])
    checked("{cmd: [python other.py, ls], deps: [data]}")
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().out.split("\n")[1]) == (True, "      - other.py")
    Path("other.py").write_text("x = ")
    with pytest.raises(UserError, match=r"^other.py: line 1: "):
        main()
