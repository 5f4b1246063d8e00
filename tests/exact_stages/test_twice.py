"""A stage that runs twice: each kind of seeded fault is reported, and the first place at which outputs differ."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.repo import Repo
from safetensors.numpy import save_file

from exact_stages import twice as module
from exact_stages.console import UserError
from exact_stages.twice import cloned, differences, git, main, place_of

SAVING = """\
import json, os, pathlib, time
state, step, momentum, weight = pathlib.Path("state"), 0, 0.0, 0.0
if state.exists():
    step, momentum, weight = json.loads(state.read_text())
    momentum = FORGETS
while step < 60:
    time.sleep(0.02)
    step, momentum = step + 1, 0.9 * momentum + 1
    weight += momentum
    pathlib.Path("new").write_text(json.dumps([step, momentum, weight]))
    os.replace("new", "state")
pathlib.Path("out.json").write_text(json.dumps({"weights": [1, weight]}))
"""
LOCALE = "import locale as l; l.setlocale(l.LC_ALL, ''); print(l.nl_langinfo(l.CODESET), l.localeconv())"
FAULTS = {
    "order": "python -c \"print({'a', 'b', 'c', 'd', 'e', 'f', 'g'})\"",
    "time": "date +%F",
    "path": "pwd",
    "locale": f'python -c "{LOCALE}"',
    "cores": "env -u OMP_NUM_THREADS nproc",
    "umask": "umask",
}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository of git and DVC, in which a stage may be run twice."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", f"{tmp_path}/.dvc/site")
    git("init", "--quiet")
    Repo.init().close()
    Path("dvc.yaml").write_text(json.dumps({"stages": {"code": {"cmd": "x"}}}))


def run(stage: dict[str, object], capfd: pytest.CaptureFixture[str], *options: str) -> tuple[bool, str]:
    """Whether it found no difference, and what it printed."""
    Path("dvc.yaml").write_text(json.dumps({"stages": {"it": stage}}))
    with pytest.raises(SystemExit) as caught:
        main("it", *options)
    return not caught.value.code, capfd.readouterr().out


def test_a_fault_of_each_kind_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    commands = FAULTS | {"steady": "python -c \"print(sorted({'a', 'b', 'c'}))\""}
    equal, printed = run({"cmd": [f"{each} > {name}" for name, each in commands.items()], "outs": [*commands]}, capfd)
    one_core = len(os.sched_getaffinity(0)) == 1
    assert not equal
    assert printed.splitlines()[-2].startswith("it: order differs: line 1: {'")
    others = [name for name in [*FAULTS][1:] if name != "cores" or not one_core]
    assert printed.splitlines()[-1] == f"it: so do {', '.join(others)}"
    assert ("cannot vary" in printed and "cores (there is one)" in printed) == one_core


@pytest.mark.parametrize(("forgets", "equal"), [("momentum", True), ("0.0", False)])
def test_a_resumption_that_forgets_is_reported(forgets: str, equal: bool, capfd: pytest.CaptureFixture[str]) -> None:
    Path("fit.py").write_text(SAVING.replace("FORGETS", forgets))
    Path(".gitignore").write_text("state\n")
    found, printed = run({"cmd": "exec python fit.py", "outs": ["out.json"]}, capfd, "--kill", "1", "--seed", "1")
    assert "\nit: outputs are equal\nit: seed 1: killed at 0.134 of " in printed
    assert (found, "out.json differs: weights[1]: " in printed) == (equal, not equal), printed


def test_a_kill_that_falls_into_no_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("dvc.yaml").write_text(json.dumps({"stages": {"it": {"cmd": "true"}}}))
    late = SimpleNamespace(random=lambda: 100.0)
    monkeypatch.setattr(module, "random", SimpleNamespace(Random=lambda _: late, randrange=lambda _: 0))
    with pytest.raises(UserError, match=r"^it: no kill fell into the run"):
        main("it", "--kill", "1")


def test_a_stage_that_fails_in_a_clone_ends_with_what_it_said() -> None:
    Path("dvc.yaml").write_text(json.dumps({"stages": {"it": {"cmd": "echo no such file >&2; exit 3"}}}))
    with pytest.raises(UserError, match=r"(?s)^it: failed in clone, .*\n  no such file\n"):
        main("it")
    with pytest.raises(UserError, match=r"^dvc.yaml: no stage other; name one of it$"):
        main("other")


def test_a_clone_has_edits_linked_deps_and_no_more(tmp_path: Path) -> None:
    stages = {
        "make": {
            "cmd": "mkdir data && echo 1 > data/a && echo 2 > data/b && echo 3 > edited",
            "outs": ["data", "edited"],
        },
        "it": {"cmd": "true", "deps": ["data", "edited", "given"], "outs": [{"kept": {"persist": True}}, "gone"]},
    }
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    Path(".gitignore").write_text("/data\n/edited\n/given\n/kept\n/gone\n/secret\n")
    with Repo() as repo:
        repo.reproduce("make")
    for name in ("edited", "given", "kept", "gone", "secret", "untracked"):
        Path(name).unlink(missing_ok=True)
        Path(name).write_text(f"{name} by hand")
    here = cloned("it", tmp_path / ".git/clone")
    found = {path.name for path in here.iterdir()} - {
        ".git",
        ".dvc",
        ".dvcignore",
        ".gitignore",
        "dvc.yaml",
        "dvc.lock",
    }
    assert found == {"data", "edited", "given", "kept", "untracked"}
    assert (here / "data/b").read_text() == "2\n"
    assert ".dvc/cache" in str((here / "data/b").resolve()) or os.stat(here / "data/b").st_mode & 0o222 == 0
    assert (here / "edited").read_text() == "edited by hand"


@pytest.mark.parametrize(
    ("suffix", "one", "two", "place"),
    [
        (".json", '{"a": [1, {"b": 2}], "c": 0}', '{"a": [1, {"b": 3}], "c": 1}', "a[1].b: 2 and 3"),
        (".json", '{"a": []}', "{}", "a: [] and nothing"),
        (".json", '{"a": 1}', '{"a":  1}', 'line 1: {"a": 1} and {"a":  1}'),
        (".json", "{", "[", "line 1: { and ["),
        (".csv", "x,y\n1,2\n3,4\n", "x,y\n1,2\n3,5\n", "row 2, column y: 4 and 5"),
        (".csv", "x,y\n1,2\n", "x,y\n1\n", "row 1, column y: 2 and nothing"),
        (".txt", "a\nb\n", "a\nc\n", "line 2: b and c"),
        (".bin", "a\n\0", "a\n", "line 2: \\x00 and "),
    ],
)
def test_the_first_place_is_named(suffix: str, one: str, two: str, place: str) -> None:
    for name, text in (("one", one), ("two", two)):
        Path(name).with_suffix(suffix).write_text(text)
    assert place_of(Path("one").with_suffix(suffix), Path("two").with_suffix(suffix)) == place


def test_the_first_tensor_is_named() -> None:
    import numpy as np

    tensors = {"a": np.zeros(3), "b": np.zeros((2, 2)), "c": np.zeros(1)}
    save_file(tensors, "one.safetensors")
    save_file(tensors | {"b": np.eye(2), "c": np.ones(1)}, "two.safetensors")
    assert place_of(Path("one.safetensors"), Path("two.safetensors")) == "tensor b"


def test_a_file_of_a_folder_that_one_run_made_is_named() -> None:
    for name in ("one/out/same", "two/out/same", "two/out/more"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert [*differences(Path("one"), Path("two"), ["out"])] == ["out/more differs: only one run made it"]
