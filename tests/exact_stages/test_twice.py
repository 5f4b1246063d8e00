"""A stage that runs twice: each kind of seeded fault is reported, and the first place at which outputs differ."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dvc.repo import Repo
from safetensors.numpy import save_file

from exact_stages import twice as module
from exact_stages.console import UserError
from exact_stages.twice import cloned, differences, environment, git, main, place_of

SAVING = """\
import json, os, pathlib, time
with open(STARTS, "a") as starts:
    third = starts.write("x") and starts.tell() == 3  # it is to be killed, and waits for that
state, other = pathlib.Path("state"), 0.0  # the other momentum is forgotten
first, momentum, good, bad = json.loads(state.read_text()) if state.exists() else [0, 0.0, 0.0, 0.0]
for step in range(first, 10):
    momentum, other = 0.9 * momentum + 1, 0.9 * other + 1
    good, bad = good + momentum, bad + other
    pathlib.Path("new").write_text(json.dumps([step + 1, momentum, good, bad]))
    os.replace("new", "state")
    time.sleep((600 if third else 1) if step == 4 else 0)
for name, weight in (("good", good), ("bad", bad)):
    pathlib.Path(f"{name}.json").write_text(json.dumps({"weights": [1, weight]}))
"""
LOCALE = "import locale as l; l.setlocale(l.LC_ALL, ''); print(l.nl_langinfo(l.CODESET), l.localeconv())"
WAITING = 'import os, sys, time; open(sys.argv[1], "w").write(str(os.getpid())); time.sleep(600)'
FAULTS = {
    "order": "python -c \"print({'a', 'b', 'c', 'd', 'e', 'f', 'g'})\"",
    "time": "date +%F",
    "path": "pwd",
    "locale": f'python -c "{LOCALE}"',
    "cores": "env -u OMP_NUM_THREADS nproc",
    "umask": "umask",
}

pytestmark = pytest.mark.usefixtures("repository")


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


def test_a_resumption_that_forgets_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("fit.py").write_text(SAVING.replace("STARTS", repr(f"{tmp_path}/.git/starts")))
    Path(".gitignore").write_text("state\n")
    stage = {"cmd": "exec python fit.py", "outs": ["good.json", "bad.json"]}
    equal, printed = run(stage, capfd, "--kill", "1", "--seed", "2")
    assert not equal
    assert "\nit: outputs are equal\nit: seed 2: killed at 0.956 of " in printed
    assert printed.splitlines()[-1].partition(" s: ")[2].startswith("bad.json differs: weights[1]: "), printed


def test_a_kill_that_falls_into_no_run_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    late = SimpleNamespace(random=lambda: 100.0)
    monkeypatch.setattr(module, "random", SimpleNamespace(Random=lambda _: late, randrange=lambda _: 0))
    with pytest.raises(UserError, match=r"^it: no kill fell into the run"):
        run({"cmd": "true"}, capfd, "--kill", "1")


def test_a_stage_that_fails_in_a_clone_ends_with_what_it_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"(?s)^it: failed in clone, .*\n  no such file\n"):
        run({"cmd": "echo no such file >&2; exit 3"}, capfd)
    with pytest.raises(UserError, match=r"^dvc.yaml: no stage other; name one of it$"):
        main("other")


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ({"frozen": True}, "it: frozen, so DVC does not run it"),
        ({"outs": [{"OUTSIDE/out": {"cache": False}}]}, "it: cannot run in a clone with /.*/other/out; give outs"),
        ({"deps": ["../other/in"]}, "it: cannot run in a clone with ../other/in; give outs"),
    ],
)
def test_a_stage_that_no_clone_can_hold_is_refused(
    stage: dict[str, object], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = json.loads(json.dumps(stage).replace("OUTSIDE", f"{tmp_path.parent}/other"))
    with pytest.raises(UserError, match=f"^{told}"):
        run({"cmd": "touch ran"} | stage, capfd)


def test_a_stage_that_edits_its_dep_leaves_the_cache_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    Path("data").write_text("before\n")
    with Repo() as repo:
        repo.add("data")
    command = "(cat data; echo after >> data || true) > out 2> /dev/null"
    assert run({"cmd": command, "deps": ["data"], "outs": ["out"]}, capfd)[0]
    assert {each.read_text() for each in Path(".dvc/cache/files").rglob("*") if each.is_file()} == {"before\n"}


def test_an_output_that_is_a_link_into_its_clone_is_a_fault(capfd: pytest.CaptureFixture[str]) -> None:
    command = "date +%N > made && ln -s $PWD/made out"
    _, printed = run({"cmd": command, "outs": [{"out": {"cache": False}}]}, capfd)
    assert "it: out not in the clones; let no absolute path" in printed


def test_a_twice_that_is_ended_ends_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("clones").mkdir()
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/clones")
    Path("dvc.yaml").write_text(
        json.dumps({"stages": {"it": {"cmd": f"exec python -c '{WAITING}' {tmp_path}/.git/pid"}}})
    )
    process = subprocess.Popen([sys.executable, "-m", "exact_stages", "twice", "it"], stderr=subprocess.PIPE, text=True)
    while not (Path(".git/pid").exists() and (pid := Path(".git/pid").read_text())):
        time.sleep(0.05)
    process.terminate()
    assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 1
    assert not [*Path("clones").iterdir()]
    deadline = time.monotonic() + 10
    while Path("/proc", pid).exists() and time.monotonic() < deadline:  # killed, and not yet reaped
        time.sleep(0.05)
    assert not Path("/proc", pid).exists()


def test_a_hook_of_git_keeps_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("given").touch()
    git("add", "--all")
    index = Path(".git/index").read_bytes()
    monkeypatch.setenv("GIT_INDEX_FILE", f"{tmp_path}/.git/index")
    os.link("given", b"name of \xff")
    assert run({"cmd": "git ls-files > out", "outs": [{"out": {"cache": False}}]}, capfd)[0]
    assert Path(".git/index").read_bytes() == index


def test_modules_of_a_neighbour_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("clone").mkdir()
    git("init", "--quiet", at=Path("clone"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/src:{tmp_path}2/src:{tmp_path}")
    assert environment(Path("clone"))["PYTHONPATH"] == f"{tmp_path}/clone/src:{tmp_path}2/src:{tmp_path}/clone"


def test_a_path_with_signs_of_a_configuration_and_a_link_out_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("outside").touch()
    Path("a, #b").mkdir()
    monkeypatch.chdir("a, #b")
    git("init", "--quiet")
    Repo.init().close()
    Path("link").symlink_to("../outside")
    make = {"cmd": "echo 1 > data", "outs": ["data"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"make": make, "it": {"cmd": "true", "deps": ["data"]}}}))
    with Repo() as repo:
        repo.reproduce("make")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root gets copies
    here = cloned("it", tmp_path / "away/clone")
    assert (here / "link").is_file()
    assert not os.stat(here / "data").st_mode & 0o222  # from the cache


def test_a_clone_has_edits_linked_deps_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = {"cmd": "mkdir data && echo 1 > data/a && echo 2 > data/b && echo 3 > edited", "outs": ["data", "edited"]}
    deps = {"cmd": "true", "deps": ["data", "edited", "given"], "outs": [{"kept": {"persist": True}}, "gone"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"make": make, "it": deps}}))
    Path(".gitignore").write_text("/data\n/edited\n/given\n/kept\n/gone\n/secret\n")
    with Repo() as repo:
        repo.reproduce("make")
    for name in ("edited", "given", "kept", "gone", "secret", "untracked"):
        Path(name).unlink(missing_ok=True)
        Path(name).write_text(f"{name} by hand")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root gets copies
    here = cloned("it", tmp_path / ".git/clone")
    found = {path.name for path in here.iterdir() if not path.name.startswith((".", "dvc."))}
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
        (".json", '{"a": NaN, "b": 1}', '{"a": NaN, "b": 2}', "b: 1 and 2"),
        (".json", '{"a": 0.0}', '{"a": -0.0}', "a: 0.0 and -0.0"),
        (".json", "[" * 9999 + "1", "[" * 9999 + "2", f"line 1: {'[' * 20}1 and {'[' * 20}2"),
        (".csv", f"x\n{'1' * 200_000}2", f"x\n{'1' * 200_000}3", f"line 2: {'1' * 20}2 and {'1' * 20}3"),
        (".safetensors", "\2" + "\0" * 7 + "[]\n1", "\2" + "\0" * 7 + "[]\n2", "line 2: 1 and 2"),
        (".txt", "a\nb\n", "a\nc\n", "line 2: b and c"),
        (".bin", "a\n\0", "a\n", "line 2: \\x00 and "),
    ],
)
def test_the_first_place_is_named(suffix: str, one: str, two: str, place: str) -> None:
    for name, text in (("one", one), ("two", two)):
        Path(name).with_suffix(suffix).write_text(text)
    assert place_of(Path("one").with_suffix(suffix), Path("two").with_suffix(suffix)) == place


def test_the_first_tensor_is_named() -> None:
    tensors = {"a": np.zeros(3), "b": np.zeros((2, 2)), "c": np.zeros(1)}
    save_file(tensors, "one.safetensors")
    save_file(tensors | {"b": np.eye(2), "c": np.ones(1)}, "two.safetensors")
    assert place_of(Path("one.safetensors"), Path("two.safetensors")) == "tensor b"


def test_a_file_of_a_folder_that_one_run_made_is_named() -> None:
    for name in ("one/out/same", "two/out/same", "two/out/more"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert [*differences(Path("one"), Path("two"), ["out"])] == ["out/more differs: only one run made it"]
