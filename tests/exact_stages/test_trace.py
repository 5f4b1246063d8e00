"""The trace tells what the processes of a stage open and dvc.yaml does not declare, and the other way round."""

from pathlib import Path

import pytest
from dvc.repo import Repo

from exact_stages.console import UserError
from exact_stages.trace import main

WORK = """\
import importlib, os, pathlib, subprocess, sys
importlib.import_module("plugins." + sys.argv[1])  # no import shows it
pathlib.Path("config.json").read_text()
pathlib.Path("tracked").read_text()
if os.fork() == 0:
    open("data/of_worker.csv").read()
    os._exit(0)
os.wait()
subprocess.run(["cat", "data/of_child.csv"], check=True)
pathlib.Path("made").mkdir(exist_ok=True)
pathlib.Path("made/.partial").write_text("x")
os.replace("made/.partial", "made/declared.txt")
pathlib.Path("made/declared.txt").read_text()
open("scratch", "w").close()
os.replace("scratch", "made/log.txt")
open("scratch", "w").close()
os.remove("scratch")
open("params.yaml").read()
"""
FILES = {
    "work.py": WORK,
    "plugins/a.py": "x = 1",
    "plugins/b.py": "x = 1",
    "plugins/__init__.py": "",
    "config.json": "{}",
    "data/of_worker.csv": "1",
    "data/of_child.csv": "2\n",
    "unread.csv": "3",
    "params.yaml": "lr: 1",
    "made/declared.txt": "of before",
    ".gitignore": "/made\n/tracked",
    "tracked": "4",
}
READ = ["config.json", "data/of_child.csv", "data/of_worker.csv", "params.yaml", "plugins/a.py", "tracked"]
WHOLE = """\
stages:
  whole:
    cmd: python work.py b
    deps: [work.py, plugins, config.json, data, tracked]
    params: [lr]
    outs: [made]
  shell: {cmd: mkdir copied && cp work.py copied, deps: [work.py, data], params: [lr], outs: [copied]}
  failing: {cmd: python work.py nothing}
"""
STAGE = """\
stages:
  it:
    matrix: {of: [a]}
    cmd: exec python work.py ${item.of}
    deps: [work.py, unread.csv]
    outs: [made/declared.txt: {persist: true}]
  known: {cmd: cp plugins/a.py ab && cp plugins/b.py ab, deps: [code/known.txt], outs: [ab]}
"""


@pytest.fixture(autouse=True)
def _project(repository: None) -> None:
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("dvc.yaml").write_text(STAGE)


def traced(name: str, capfd: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The paths that it prints, by their title; it ends with code 1 if a file is not declared."""
    with pytest.raises(SystemExit) as caught:
        main(name)
    found: dict[str, list[str]] = {}
    for line in capfd.readouterr().out.splitlines()[:-1]:
        if line.startswith(f"{name}: "):
            paths = found.setdefault(line.removeprefix(f"{name}: "), [])
        elif line.startswith("      - "):
            paths.append(line[8:])
    assert bool(caught.value.code) == any("not declared" in title for title in found)
    assert Path("made/declared.txt").read_text() == "of before"
    return found


def test_what_workers_children_and_imports_by_name_open_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    with Repo() as repo:
        repo.add("tracked")
    assert traced("it@a", capfd) == {
        "declared, not read": ["unread.csv"],
        "read, not declared": READ,
        "written, not declared": ["made/log.txt"],
    }


def test_a_file_is_not_read_because_the_cache_has_it_under_another_name(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        Path(name).write_text("same")
    with Repo() as repo:
        repo.add(["one", "two"])
    for name in ("one", "two"):
        Path("dvc.yaml").write_text(f"stages: {{it: {{cmd: cat {name}, deps: [{name}]}}}}")
        assert traced("it", capfd) == {}


def test_a_file_is_not_read_because_another_process_reads_its_object(capfd: pytest.CaptureFixture[str]) -> None:
    Path("one").write_text("1\n")
    with Repo() as repo:
        repo.add("one")
    cached = next(each for each in Path(".dvc/cache").rglob("*") if each.is_file())
    other = Path(".dvc/other").resolve()  # as caches of two repositories may share it
    other.hardlink_to(cached)
    Path("dvc.yaml").write_text(f"stages: {{it: {{cmd: cat {other}, deps: [one]}}}}")
    assert traced("it", capfd) == {"declared, not read": ["one"]}


def test_folders_and_params_are_declared_and_a_shell_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    Path("dvc.yaml").write_text(WHOLE)
    assert traced("whole", capfd) == {}
    assert traced("shell", capfd) == {"declared, not read": ["data", "params.yaml"]}


def test_a_stage_that_fails_is_told() -> None:
    with pytest.raises(UserError, match=r"^dvc.yaml: no stage it; name one of it@a, "):
        main("it")
    Path("dvc.yaml").write_text(WHOLE)
    with pytest.raises(UserError, match=r"^failing: failed in a clone"):
        main("failing")


def test_the_lines_of_the_stages_code_are_declared(capfd: pytest.CaptureFixture[str]) -> None:
    Path("code").mkdir()
    Path("code/known.txt").write_text(f"{'0' * 64}  plugins/a.py\n")
    assert traced("known", capfd) == {"read, not declared": ["plugins/b.py"]}
