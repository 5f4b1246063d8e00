"""A stage leaves no outputs when what it read has changed, and works alone in its workspace."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ddpm.pipeline.lock import try_lock

from ddpm.pipeline import process, provenance, stage
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Section, Sections
from ddpm.pipeline.stage import Stage, run_stage
from scripts.closure import closure


class Knobs(Section):
    lr: float
    classes: tuple[int, ...]


class Params(Sections):
    train: Knobs


PICTURE = "pictures/cat/1.png"
TEXT = "train:\n  lr: 0.001\n  classes: [7]\nother: 1\n"


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Params, a file and a folder to read, and one file of code, which is imported."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(TEXT)
    Path("input").write_bytes(b"images")
    for name in ("pictures/cat/1.png", "pictures/cat/2.png", "pictures/dog/1.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    code = tmp_path / "code.py"
    code.write_text("x = 1\n")
    for where in (process, provenance):
        monkeypatch.setattr(where, "ROOT", tmp_path)
    for where in (process, provenance, stage):
        monkeypatch.setattr(where, "CODE", {code: process.sha256(code)})
        if where is not provenance:
            monkeypatch.setattr(where, "LAST", [])
    monkeypatch.setattr(stage, "PATIENCE", 0.3)


def run(meanwhile: str = "") -> None:
    """A stage that reads all there is and writes an output; `meanwhile` is done between."""
    with Stage("train") as running:
        assert running.params(Params).train.lr == 0.001
        running.input(Path("input")).read_bytes()
        running.input(Path("pictures"))
        running.input(Path("absent"))
        running.output(Path("early")).write_text("curve")
        exec(meanwhile)
        running.output(Path("late")).write_text("model")


HARMLESS = {
    "nothing": "pass",
    "another section": "Path('params.yaml').write_text(TEXT.replace('other: 1', 'other: 2'))",
    "a comment, and another spelling": "Path('params.yaml').write_text(TEXT.replace('0.001', '1e-3  # slow'))",
    "the same bytes in a new file": "Path('new').write_bytes(b'images'); os.replace('new', 'input')",
    "an empty folder": "Path('pictures/empty').mkdir()",
    "a link to nothing": "Path('pictures/cat/3.png').symlink_to('nothing')",
    "a mode": "Path('pictures/cat/1.png').chmod(0o444)",
}
CHANGES = {
    "a value": ("Path('params.yaml').write_text(TEXT.replace('0.001', '0.9'))", "train.lr (0.001, now 0.9)"),
    "a list": ("Path('params.yaml').write_text(TEXT.replace('[7]', '[7, 8]'))", "train.classes ([7], now [7, 8])"),
    "invalid params": ("Path('params.yaml').write_text(TEXT.replace('0.001', 'fast'))", "params.yaml"),
    "no params": ("Path('params.yaml').unlink()", "params.yaml"),
    "code": ("Path('code.py').write_text('x = 2')", "code.py"),
    "no code": ("Path('code.py').unlink()", "code.py"),
    "an input replaced": ("Path('new').write_bytes(b'others'); os.replace('new', 'input')", "input"),
    "an input written to": ("Path('input').write_bytes(b'images')", "input"),
    "no input": ("Path('input').unlink()", "input"),
    "a picture added": ("Path('pictures/cat/3.png').touch()", "pictures"),
    "a picture replaced": ("Path('new').write_text('pictures/cat/9.png'); os.replace('new', PICTURE)", "pictures"),
    "a picture written to": ("Path(PICTURE).write_text('pictures/cat/9.png')", "pictures"),
    "a picture in another class": ("os.rename(PICTURE, 'pictures/dog/2.png')", "pictures"),
    "a picture through a link": ("Path('pictures/cat/3.png').symlink_to('1.png')", "pictures"),
    "no picture": ("Path(PICTURE).unlink()", "pictures"),
    "a class": ("os.rename('pictures/cat', 'pictures/lion')", "pictures"),
    "no folder": ("shutil.rmtree('pictures')", "pictures"),
    "a file for a folder": ("shutil.rmtree('pictures'); Path('pictures').touch()", "pictures"),
    "a folder for a file": ("Path('input').unlink(); Path('input').mkdir()", "input"),
    "a file and a folder": ("Path('input').unlink(); Path(PICTURE).unlink()", "input, pictures"),
}


@pytest.mark.parametrize("meanwhile", HARMLESS.values(), ids=HARMLESS)
def test_what_the_stage_did_not_read_may_change(meanwhile: str) -> None:
    run(meanwhile)
    assert (Path("early").read_text(), Path("late").read_text()) == ("curve", "model")


@pytest.mark.parametrize(("meanwhile", "told"), CHANGES.values(), ids=CHANGES)
def test_no_output_is_left_when_what_was_read_has_changed(meanwhile: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        run(meanwhile)
    assert str(caught.value) == (
        f"train: nothing of this run is kept as output, for these changed while it ran: {told}; "
        "put them back, or leave them so, and run it again"
    )
    assert not Path("early").exists()
    assert not Path("late").exists()


def test_an_error_of_the_stage_itself_is_the_one_that_is_told() -> None:
    with pytest.raises(UserError, match=r"^its own$"):
        run("Path('params.yaml').unlink(); raise UserError('its own')")


def test_facts_are_code_inputs_and_params_and_make_the_fingerprint() -> None:
    fingerprints = []
    for text, data in ((TEXT, b"1"), (TEXT.replace("other: 1", "other: 2"), b"1"), (TEXT, b"2"), (TEXT, b"1")):
        Path("params.yaml").write_text(text)
        Path("input").write_bytes(data)
        running = Stage("train")
        running.params(Params)
        running.input(Path("input"))
        facts = running.facts()
        fingerprints.append(running.fingerprint("cpu"))
        assert running.fingerprint("gpu") != fingerprints[-1]
    assert facts == {
        "code.py": process.sha256(Path("code.py")),
        "input": process.sha256(Path("input")),
        "train.lr": 0.001,
        "train.classes": [7],
    }
    same, other_section, other_input, again = fingerprints
    assert same == other_section == again != other_input


def test_the_fact_of_a_folder_is_which_files_it_has_and_when_they_were_written() -> None:
    found = []
    for change in ("pass", "pass", "Path('pictures/new.png').touch()", "os.utime(PICTURE, (1, 1))"):
        exec(change)
        running = Stage("preprocess")
        assert running.input(Path("pictures")) == Path("pictures")
        found.append(running.facts()["pictures"])
    assert found[0] == found[1]
    assert len({*found}) == 3
    assert all(len(each) == 64 for each in found)


def test_python_looks_a_last_time_when_it_leaves() -> None:
    run()
    assert [look() for look in stage.LAST] == [""]
    Path("input").write_bytes(b"others")
    (told,) = [look() for look in stage.LAST]
    assert told.startswith("train: nothing of this run is kept as output, for these changed while it ran: input; put")
    assert not Path("early").exists()
    assert not Path("late").exists()


def test_the_lock_is_held_until_the_last_look(tmp_path: Path) -> None:
    run()
    with (tmp_path / ".resume/train.lock").open("a") as file:
        assert not try_lock(file)


def test_outputs_are_written_only_while_the_lock_is_held() -> None:
    with pytest.raises(
        UserError, match=r"^train: \.resume/train\.lock was removed while it ran; its outputs are not written"
    ):
        run("os.remove('.resume/train.lock')")
    assert not Path("late").exists()


def test_code_that_dvc_yaml_does_not_list_is_refused() -> None:
    listed = "stages:\n  train:\n    cmd: x\n    deps: [input, code.py]\n"
    Path("dvc.yaml").write_text(listed)
    run()
    stage.LAST.clear()  # and with it the lock
    Path("dvc.yaml").write_text(listed.replace(", code.py", ""))
    with pytest.raises(UserError, match=r"^dvc\.yaml: train: runs code\.py; list it among the stage's deps$"):
        run()


def hold(seconds: float) -> None:
    with Stage("train"):
        Path("held").touch()
        time.sleep(seconds)


@pytest.mark.parametrize(("seconds", "taken"), [(60, False), (0.1, True)])
def test_one_run_at_a_time_and_a_little_patience(seconds: float, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PATIENCE", 20 if taken else 0.3)
    other = multiprocessing.get_context("fork").Process(target=hold, args=(seconds,))
    other.start()
    while not Path("held").exists():
        time.sleep(0.01)
    try:
        if taken:
            run()
        else:
            with pytest.raises(
                UserError, match=rf"^train: process {other.pid} is at it already; wait for it, or end it$"
            ):
                run()
            with Stage("train", "item"), Stage("sample"), Stage("train", alone=False):
                pass  # other stages, and helpers, are not in its way
    finally:
        other.kill()
        other.join()


@pytest.mark.parametrize("arguments", [[], ["c"], ["a", "b"]])
def test_a_stage_of_a_matrix_names_its_items(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_stage("sample", lambda _: None, ["a", "b"])
    assert caught.value.code == "error: usage: python -m stages.sample {a,b}"


def test_a_stage_is_told_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sys, "argv", ["stage", "b"])
    run_stage("sample", lambda running: seen.append((running.name, running.item)), ["a", "b"])
    monkeypatch.setattr(sys, "argv", ["stage"])
    run_stage("evaluate", lambda running: seen.append((running.name, running.item)))
    assert seen == [("sample-b", "b"), ("evaluate", "")]


IMPORTED = """
import sys
sys.argv[0] = "-m"
sys.path.insert(0, ".")
import stages, stages.train
from ddpm.pipeline.process import CODE, ROOT
print(*sorted(str(path.relative_to(ROOT)) for path in CODE))
"""


def test_the_code_that_is_known_is_all_that_was_imported() -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", IMPORTED], cwd=root, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == closure("stages.train", root)


def test_an_edit_that_python_s_own_cache_would_not_see_runs(tmp_path: Path) -> None:
    """Of equal length, in the same second."""
    root = Path(__file__).parents[2]
    for name in ("stages", "src"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "src/ddpm/diffusion/timesteps.py"
    code = "import sys; sys.path.insert(0, '.'); import stages; from ddpm.diffusion import timesteps as t; "
    code += "print(t.TIMESTEP_BUCKETS)"
    begun = [sys.executable, "-c", code.replace("import stages; ", "sys.path.insert(0, 'src'); ")]  # leaves a cache
    os.utime(file, (10**9, 10**9))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def printed(command: list[str]) -> str:
        ended = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, check=True)
        return ended.stdout

    assert printed(begun) == "10\n"
    file.write_text(file.read_text().replace("TIMESTEP_BUCKETS = 10", "TIMESTEP_BUCKETS = 12"))
    os.utime(file, (10**9 + 0.5, 10**9 + 0.5))
    assert printed(begun) == "10\n"
    assert printed([sys.executable, "-c", code]) == "12\n"
