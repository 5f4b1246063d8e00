"""The trace tells what the processes of a stage open and dvc.yaml does not declare, and the other way round."""

import os
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from exact_stages.console import UserError
from exact_stages.trace import main

LAUNCH = "import os, sys\nos.execvp(sys.argv[1], sys.argv[1:])"
WORK = """\
import importlib, os, pathlib, subprocess, sys
importlib.import_module("plugins." + sys.argv[1])  # no import shows it
pathlib.Path("config.json").read_text()
if os.fork() == 0:
    open("data/of_worker.csv").close()
    os._exit(0)
os.wait()
subprocess.run([sys.executable, "-c", "open('data/of_child.csv')"], check=True)
pathlib.Path("made").mkdir(exist_ok=True)
pathlib.Path("made/.partial").write_text("x")
os.replace("made/.partial", "made/declared.txt")
pathlib.Path("made/declared.txt").read_text()
open("scratch", "w").close()
os.replace("scratch", "made/log.txt")
open("made/log.txt").close()
open("scratch", "w").close()
os.remove("scratch")
open("params.yaml").close()
"""
FILES = {
    "launch.py": LAUNCH,
    "work.py": WORK,
    "plugins/a.py": "x = 1",
    "plugins/b.py": "x = 1",
    "plugins/__init__.py": "",
    "config.json": "{}",
    "data/of_worker.csv": "1",
    "data/of_child.csv": "2",
    "unread.csv": "3",
    "params.yaml": "lr: 1",
}
STAGE = """\
stages:
  it:
    matrix: {of: [a, b]}
    cmd: exec python launch.py python work.py ${item.of}
    deps: [launch.py, work.py, unread.csv]
    outs: [made/declared.txt: {persist: true}]
  whole:
    cmd: python work.py b
    deps: [work.py, plugins, config.json, data]
    params: [lr]
    outs: [made]
  hidden: {cmd: env PYTHONPATH= python plugins/a.py}
  failing: {cmd: python work.py nothing, outs: [made/failed: {cache: false}]}
  shell: {cmd: cp work.py made/failed, outs: [made/failed: {persist: true}]}
"""
KNOWN = {file.split("/")[0] for file in FILES}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", f"{tmp_path}/.dvc/site")
    Repo.init(no_scm=True).close()
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def traced(name: str, dvc_yaml: str, capfd: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The paths that it prints, by their title; it ends with code 1 if a file is not declared."""
    Path("dvc.yaml").write_text(dvc_yaml)
    with pytest.raises(SystemExit) as caught:
        main(name, Path("dvc.yaml"))
    found: dict[str, list[str]] = {}
    for line in capfd.readouterr().out.splitlines()[1:-1]:
        if line.startswith(f"{name}: "):
            paths = found.setdefault(line.removeprefix(f"{name}: "), [])
        elif line.startswith("      - "):
            paths.append(line[8:])
    assert bool(caught.value.code) == any("not declared" in title for title in found)
    return found


def test_what_workers_launchers_and_imports_by_name_open_is_seen(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compiled = tmp_path_factory.mktemp("compiled")
    for item in ("a", "a", "b", "b"):  # the second and the last time, what Python has compiled
        if item == "b":
            monkeypatch.setattr(sys, "pycache_prefix", str(compiled))
            monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(compiled))
        assert traced(f"it@{item}", STAGE, capfd) == {
            "declared, not read": ["unread.csv"],
            "read, not declared": [
                *("config.json", "data/of_child.csv", "data/of_worker.csv", "params.yaml", f"plugins/{item}.py")
            ],
            "written, not declared": ["made/log.txt"],
        }


def test_folders_and_params_are_declared_and_outputs_of_before_are_gone(capfd: pytest.CaptureFixture[str]) -> None:
    Path("made").mkdir()
    Path("made/old.txt").touch()
    assert traced("whole", STAGE, capfd) == {}
    assert {path.name for path in Path("made").iterdir()} == {"declared.txt", "log.txt"}
    assert not Path("dvc.lock").exists()
    params = STAGE.replace("python work.py b", "python plugins/a.py")
    assert traced("whole", params, capfd) == {"declared, not read": ["config.json", "data", "params.yaml", "work.py"]}


@pytest.mark.parametrize("name", ["hidden", "failing", "it", "shell"])
def test_what_cannot_be_traced_is_refused_and_outputs_are_as_before(name: str) -> None:
    Path("dvc.yaml").write_text(STAGE)
    for file in ("made/failed", "made/declared.txt"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text("before")
    with pytest.raises(UserError, match=r"^(hidden|failing|dvc.yaml|shell): "):
        main(name, Path("dvc.yaml"))
    assert Path("made/failed").read_text() == Path("made/declared.txt").read_text() == "before"
    assert {path.name for path in Path().iterdir()} == {".dvc", ".dvcignore", "dvc.yaml", "made", *KNOWN}


def test_the_lines_of_the_stages_code_are_declared(capfd: pytest.CaptureFixture[str]) -> None:
    Path("code").mkdir()
    Path("code/known.txt").write_text(f"{'0' * 64}  plugins/a.py\n")
    text = "stages: {known: {cmd: python plugins/a.py, deps: [code/known.txt]}}"
    assert traced("known", text, capfd) == {}
