"""A stage leaves no outputs when what it read has changed, works alone in its workspace, and ends with its DVC."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exact_stages import commands, stage
from exact_stages.console import UserError
from exact_stages.files import SavedState, sha256
from exact_stages.params import Section, Sections
from exact_stages.stage import Role, Stage, begun, run_stage

ROOT = Path(__file__).parents[2]
BEGIN = "import sys; sys.argv[0] = '-m'; sys.path.insert(0, '.'); import stages; import os, time\n"
PICTURE = "pictures/cat/1.png"
TEXT = "train:\n  lr: 0.001\n  classes: [7]\nother: 1\n"
LOOP, SCORES, SCRIPT, KIT = "src/a/loop.py", "src/b/scores.py", "stages/train.py", "src/exact_stages/files.py"
CODE = {LOOP: "x = 1  # one\n", SCORES: "x = 1\n", SCRIPT: "import a.loop\n", "stages/sample.py": "import b.scores\n"}
DEPS = """
stages:
  train:
    cmd: python -m stages.train
    deps: [code/train.txt, input, pictures, configs, absent]
    params: [train]
  sample: {cmd: python -m stages.sample, deps: [code/sample.txt]}
  download: {cmd: x}
"""


class Knobs(Section):
    lr: float
    classes: tuple[int, ...]


class Params(Sections):
    train: Knobs


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write params, a file and a folder to read, and code, of which the stage imports a part."""
    monkeypatch.chdir(tmp_path)
    for name in (PICTURE, "pictures/cat/2.png", "pictures/dog/1.png", "configs/a.yaml", *CODE):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(CODE.get(name, name))
    Path("params.yaml").write_text(TEXT)
    Path("dvc.yaml").write_text(DEPS)
    Path("input").write_bytes(b"images")
    commands.write()
    begun.cache_clear()
    monkeypatch.setattr(stage, "PATIENCE", 0.3)


def run(meanwhile: Callable[[], object] = lambda: None, role: Role = Role()) -> None:  # noqa: B008
    """Run a stage that reads all there is and writes an output; `meanwhile` is done between."""
    with Stage("train", role=role) as running:
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
    "code of another stage": lambda: edit(SCORES, "x = 2"),
    "a comment in code": lambda: edit(LOOP, "x = 1  # two\n\n"),
    "a leftover of an editor": lambda: Path("configs/.#a.yaml").symlink_to("user@machine.123"),  # as Emacs leaves it
    "compiled code": lambda: shutil.copytree("src/a", "src/a/__pycache__"),
}
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "a value": (lambda: edit("params.yaml", TEXT.replace("0.001", "0.9")), "train.lr"),
    "invalid params": (lambda: edit("params.yaml", "train: {"), "train.classes, train.lr"),
    "code": (lambda: edit(LOOP, "x = 2"), LOOP),
    "code, and the stage `code` runs": (lambda: (edit(LOOP, "x = 2"), commands.write()), f"code/train.txt, {LOOP}"),
    "code that is half written": (lambda: edit(LOOP, "x = ("), f"{LOOP}: not valid Python: line 1: .*"),
    "the script": (lambda: Path(SCRIPT).unlink(), f"{LOOP}, {SCRIPT}"),
    "code, and it ends by exit": (lambda: edit(LOOP, "x = 2") or sys.exit(0), LOOP),
    "an input": (lambda: edit("input", "others"), "input"),
    "a picture added": (lambda: Path("pictures/cat/3.png").touch(), "pictures"),
    "a picture replaced": (lambda: edit(PICTURE, "pictures/cat/9.png"), "pictures"),
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


def test_no_state_is_begun_or_left_with_code_that_was_edited_meanwhile() -> None:
    running = Stage("train")
    saved = SavedState("train", running.fingerprint())
    saved.write(b"state")
    CHANGES["code"][0]()
    with pytest.raises(UserError, match="changed while it ran"):
        running.__exit__(None, None, None)
    assert saved.read() is None, "its later part may be of the edited code"
    with pytest.raises(UserError, match=f"^{LOOP} changed since the stage `code` ran; run `dvc repro`"):
        Stage("train").fingerprint()
    commands.write()
    with pytest.raises(UserError, match=f"changed while it began: {LOOP};"):  # it may be imported already
        Stage("train").fingerprint()


@pytest.mark.parametrize(
    ("deps", "said"),
    [
        (DEPS.replace("code/train.txt, ", ""), "dvc.yaml: train: add code/train.txt to its deps"),
        (DEPS.replace("params: [train]", "params: [train.lr]"), "dvc.yaml: train: .* which it reads: train.classes"),
        (DEPS.replace("stages.train", "a.loop"), "stages/train.py changed since"),
    ],
)
def test_a_stage_without_its_code_or_params_among_its_deps_is_refused(deps: str, said: str) -> None:
    Path("dvc.yaml").write_text(deps)
    begun.cache_clear()
    with pytest.raises(UserError, match=f"^{said}"):
        run()
    assert not Path("early").exists()


def test_a_stage_is_refused_where_the_stage_code_has_not_run() -> None:
    Path("code/train.txt").unlink()
    with pytest.raises(UserError, match=r"^code/train.txt: no such file; run `dvc repro`"):
        run()


def test_a_stage_that_dvc_runs_by_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "dvc.yaml:train", "train@item"):
        monkeypatch.setenv("DVC_STAGE", name)
        run()
    monkeypatch.setenv("DVC_STAGE", "train_big")
    with pytest.raises(UserError, match="train_big"):
        run()


def test_the_fingerprint_is_of_command_deps_params_inputs_and_further_facts() -> None:
    def fingerprint(fact: str = "cpu") -> str:
        begun.cache_clear()
        running = Stage("train")
        running.params(Params)
        running.input(Path("input"))
        return running.fingerprint(fact)

    found, changed = [fingerprint("cuda"), fingerprint()], TEXT.replace("[7]", "[7, 8]")
    texts = {"params.yaml": changed, "input": "others", LOOP: "", "dvc.yaml": DEPS.replace("cmd: ", "cmd: env K=5 ")}
    for file, text in texts.items():
        Path(file).write_text(text)
        commands.write()
        found.append(fingerprint())
    assert len({*found}) == 6
    Path("params.yaml").write_text(changed.replace("other: 1", "other: 2"))
    Path(SCORES).write_text("x = 2")
    Path(LOOP).write_text("# a comment\n")
    commands.write()
    assert fingerprint() == found[-1]


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


def test_one_process_of_a_machine_hashes_each_input_at_start_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(stage, "_digest", lambda path: hashed.append(path) or "")
    for role in (Role(), Role(writes=False, leads=False)):
        with Stage("train", role=role) as running:
            assert [running.input(Path("input")) for _ in range(2)] == [Path("input")] * 2
            assert bool(running.fingerprint()) == role.leads
            assert len(hashed) == role.leads
        assert len(hashed) == 2 * role.leads
        hashed.clear()


def test_a_process_that_does_not_write_takes_no_lock_and_one_that_does_not_lead_tells_no_change() -> None:
    with Stage("train"):
        run(role=Role(writes=False))
    assert not Path("early").exists()
    run(CHANGES["code"][0], role=Role(writes=False, leads=False))


def test_a_stage_is_told_its_item_and_refuses_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def called(name: str, *arguments: str, **options: object) -> None:
        monkeypatch.setattr(sys, "argv", ["stage", *arguments])
        run_stage(name, lambda running: seen.append((running.name, running.item)), **options)  # type: ignore[arg-type]

    called("sample", "b", items=["a", "b"])
    called("sample", "4", argument="STEPS")
    called("train")
    assert seen == [("sample-b", "b"), ("sample-4", "4"), ("train", "")]
    for arguments in ([], ["c"], ["a", "b"]):
        with pytest.raises(SystemExit, match=r"^error: usage: python -m stages.sample \{a,b\}$"):
            called("sample", *arguments, items=["a", "b"])


def start(code: str, root: Path = ROOT, **variables: str) -> "subprocess.Popen[str]":
    """Start a Python that imports the project's stages as `python -m` does, and then runs `code`."""
    kept = {name: value for name, value in os.environ.items() if name != "STAGE_PARENT"}
    command = [sys.executable, "-c", BEGIN + code]
    return subprocess.Popen(
        command, cwd=root, env=kept | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_all_code_of_the_stages_is_hashed_before_it_is_imported() -> None:
    code = (
        "from exact_stages.stage import begun, Path; print('torch' in sys.modules); "
        "print(*begun(Path.cwd()).code.items(), sep='\\n')"
    )
    printed, told = start(code).communicate(timeout=60)
    assert told == ""
    late, *hashes = printed.splitlines()
    assert late == "False"
    files = {path: sha256(ROOT / path) for path in (KIT, SCRIPT, "stages/__init__.py", "src/ddpm/processes/device.py")}
    assert {*map(str, files.items())} <= {*hashes}


def test_ctrl_c_during_the_imports_ends_without_a_traceback() -> None:
    process = start("print('go', flush=True); time.sleep(60)")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(("parent", "printed"), [(os.getpid(), "done\n"), (1 << 30, "")], ids=["alive", "dead"])
def test_a_stage_works_while_its_dvc_is_above_it(parent: int, printed: str) -> None:
    code = f"time.sleep({2 if printed else 60}); print('done')"
    assert start(code, STAGE_PARENT=str(parent)).communicate(timeout=30) == (printed, "")


def test_a_python_without_the_packages_says_what_to_type() -> None:
    command = [sys.executable, "-S", "-m", "stages.train"]  # -S: no site-packages
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
