"""A stage leaves no outputs when what it read has changed, and works alone in its workspace."""

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exact_stages import process, stage
from exact_stages.console import UserError
from exact_stages.params import Section, Sections
from exact_stages.stage import Stage, run_stage


class Knobs(Section):
    lr: float
    classes: tuple[int, ...]


class Params(Sections):
    train: Knobs


PICTURE = "pictures/cat/1.png"
TEXT = "train:\n  lr: 0.001\n  classes: [7]\nother: 1\n"
CODE = ["src/ddpm/training/loop.py", "src/ddpm/scoring/scores.py", "stages/train.py"]
DEPS = "stages:\n  train:\n    deps: [stages/train.py, src/ddpm/training, input, pictures]\n  sample:\n    deps: []\n"


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write params, a file and a folder to read, and code, of which the stage declares a part."""
    monkeypatch.chdir(tmp_path)
    for name in (PICTURE, "pictures/cat/2.png", "pictures/dog/1.png", *CODE):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("params.yaml").write_text(TEXT)
    Path("dvc.yaml").write_text(DEPS)
    Path("input").write_bytes(b"images")
    monkeypatch.setattr(process, "ROOT", tmp_path)
    monkeypatch.setattr(stage, "CODE", process.hash_code())
    monkeypatch.setattr(stage, "PATIENCE", 0.3)


def run(meanwhile: Callable[[], object] = lambda: None) -> None:
    """Run a stage that reads all there is and writes an output; `meanwhile` is done between."""
    with Stage("train") as running:
        assert running.params(Params).train.lr == 0.001
        running.input(Path("input")).read_bytes()
        running.input(Path("pictures"))
        running.input(Path("absent"))
        running.write(Path("early"), b"curve")
        meanwhile()
        running.write_json(Path("late"), {"steps": 3})


def edit(file: str, text: str) -> None:
    """Write a new file and move it into place, as editors do."""
    Path("new").write_text(text)
    os.replace("new", file)


HARMLESS: dict[str, Callable[[], object]] = {
    "another section": lambda: edit("params.yaml", TEXT.replace("other: 1", "other: 2")),
    "a comment": lambda: edit("params.yaml", TEXT.replace("0.001", "1e-3  # slow")),
    "the same bytes in a new file": lambda: edit("input", "images"),
    "code of another package": lambda: edit(CODE[1], "x = 2"),
    "a leftover of an editor": lambda: Path("src/ddpm/training/.#loop.py").symlink_to("nothing"),
}
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "a value": (lambda: edit("params.yaml", TEXT.replace("0.001", "0.9")), "train.lr"),
    "invalid params": (lambda: edit("params.yaml", "train: {"), "train.classes, train.lr"),
    "code": (lambda: edit(CODE[0], "x = 2"), CODE[0]),
    "the script": (lambda: Path(CODE[2]).unlink(), CODE[2]),
    "new code": (lambda: Path("src/ddpm/training/new.py").touch(), "src/ddpm/training/new.py"),
    "an input": (lambda: edit("input", "others"), "input"),
    "a picture added": (lambda: Path("pictures/cat/3.png").touch(), "pictures"),
    "a picture replaced": (lambda: edit(PICTURE, "pictures/cat/9.png"), "pictures"),
    "no folder": (lambda: shutil.rmtree("pictures"), "pictures"),
}


@pytest.mark.parametrize("meanwhile", HARMLESS.values(), ids=HARMLESS)
def test_what_the_stage_did_not_read_may_change(meanwhile: Callable[[], object]) -> None:
    run(meanwhile)
    assert Path("early").read_text() == "curve"
    assert Path("late").read_text() == '{\n  "steps": 3\n}\n'


@pytest.mark.parametrize(("meanwhile", "named"), CHANGES.values(), ids=CHANGES)
def test_no_output_is_left_when_what_was_read_has_changed(meanwhile: Callable[[], object], named: str) -> None:
    with pytest.raises(UserError, match=f"^train: .* changed while it ran: {named};"):
        run(meanwhile)
    assert not Path("early").exists()
    assert not Path("late").exists()


def test_an_error_of_the_stage_itself_is_the_one_that_is_told() -> None:
    def fail() -> None:
        Path("input").unlink()
        raise UserError("its own")

    with pytest.raises(UserError, match=r"^its own$"):
        run(fail)


def test_the_fingerprint_is_of_code_params_inputs_and_further_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(fact: str = "cpu") -> str:
        running = Stage("train")
        running.params(Params)
        running.input(Path("input"))
        return running.fingerprint(fact)

    found = [fingerprint()]
    for file, text in (("params.yaml", TEXT.replace("[7]", "[7, 8]")), ("input", "others"), (CODE[0], "x = 2")):
        Path(file).write_text(text)
        monkeypatch.setattr(stage, "CODE", process.hash_code())
        found.append(fingerprint())
    found.append(fingerprint("cuda"))
    assert len({*found}) == 5
    Path("params.yaml").write_text(TEXT.replace("[7]", "[7, 8]").replace("other: 1", "other: 2"))
    Path(CODE[1]).write_text("x = 2")
    monkeypatch.setattr(stage, "CODE", process.hash_code())
    assert fingerprint() == found[3]


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
            with pytest.raises(UserError, match=r"^train: another run"):
                run()
            with Stage("train", "item"), Stage("sample"):
                pass  # other stages are not in its way
    finally:
        other.kill()
        other.join()


def test_off_rank_0_nothing_is_locked_or_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "0")
    with Stage("train"):
        monkeypatch.setenv("RANK", "1")
        run()
    assert not Path("early").exists()


def test_a_stage_is_told_its_item_and_refuses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    Path("dvc.yaml").write_text("stages: {sample: {deps: []}, distill: {deps: []}, evaluate: {deps: []}}")

    def called(name: str, *arguments: str, **options: object) -> None:
        monkeypatch.setattr(sys, "argv", ["stage", *arguments])
        run_stage(name, lambda running: seen.append((running.name, running.item)), **options)  # type: ignore[arg-type]

    called("sample", "b", items=["a", "b"])
    called("distill", "4", argument="STEPS")
    called("evaluate")
    assert seen == [("sample-b", "b"), ("distill-4", "4"), ("evaluate", "")]
    for arguments in ([], ["c"], ["a", "b"]):
        with pytest.raises(SystemExit, match=r"^error: usage: python -m stages.sample \{a,b\}$"):
            called("sample", *arguments, items=["a", "b"])
