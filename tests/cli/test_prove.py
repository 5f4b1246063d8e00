"""`ddpm prove`: it names each thing that differs, and no other."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ruamel.yaml import YAML

from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.proving.facts import read_provenance
from ddpm.proving.rebuild import compare
from exact_stages import source
from exact_stages.console import UserError
from exact_stages.files import md5
from tests.cli.generating import ENVIRONMENT, call
from tests.with_dvc.dvc_clone import Clone, identify

ROOT = Path(__file__).parents[2]
MODEL, RECORD = Path("models/ddpm.safetensors"), Path("models/ddpm.provenance.json")
PICTURE, WEIGHT = Path("data/mine/cat/0.png"), "label.weight"
TINY: dict[str, dict[str, Any]] = {
    "data": {"set": "data/mine"},
    "model": {"channels": [8, 16], "patch_size": 2},
    "train": {"epochs": 1, "batch_size": 20, "log_every": 1},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which preprocess and train have run, and are committed as if by DVC."""
    folder = tmp_path_factory.mktemp("built") / "checkout"
    leftovers = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
    for name in ("dvc.yaml", "pyproject.toml", "constraints.txt", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params = {name: {**values, **TINY.get(name, {})} for name, values in params.items()}
    (folder / "params.yaml").write_text(json.dumps(params))
    for number in range(60):
        path = folder / f"data/mine/{('cat', 'dog')[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
    subprocess.run(
        [sys.executable, "-m", "exact_stages", "code"], cwd=folder, env=os.environ | {"PYTHONPATH": "src"}, check=True
    )
    for stage in ("preprocess", "train"):
        command = [sys.executable, "-m", f"stages.{stage}"]
        subprocess.run(command, cwd=folder, env=os.environ | ENVIRONMENT, check=True)
    (folder / "dvc.lock").write_text(f"schema: '2.0'  # {md5(folder / MODEL)} {md5(folder / RECORD)}\n")
    clone = Clone(folder)
    clone.git("init", "--quiet")
    identify(clone)
    clone.commit()
    return folder


@pytest.fixture
def checkout(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(built, tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[list[str], list[str]]:
    """The names of the facts that differ, and the kinds of those that hold."""
    capsys.readouterr()
    error = ""
    try:
        call("prove", *words)
    except UserError as raised:
        error = str(raised)
    printed = capsys.readouterr().out
    differing = re.findall(r"^differs  (\w.*?): ", printed, re.MULTILINE)
    assert (bool(error), error.count("\n")) == (bool(differing), 0)
    return differing, re.findall(r"^holds    ([\w.]+): ", printed, re.MULTILINE)


def append(file: str | Path, line: str) -> None:
    Path(file).write_text(Path(file).read_text() + f"{line}\n")


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def rewritten() -> None:
    weights, facts = load_arrays(MODEL)
    weights[WEIGHT][0, 0] += 0.1
    save_arrays(MODEL, weights, facts)


def unlock(package: str) -> None:
    path = Path("constraints.txt")
    path.write_text(re.sub(rf"^{package}==.*\n", "", path.read_text(), flags=re.MULTILINE))


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "code src/ddpm/diffusion/optim.py": lambda _: append("src/ddpm/diffusion/optim.py", "UNUSED = 1"),
    **{
        f"inputs data/mine/{name}": lambda _, name=name: shutil.copy(PICTURE, f"data/mine/{name}")
        for name in ("cat/new.png", "cat/new.PNG", "cat/new.jpg", "labels.csv", "t10k-labels-idx1-ubyte")
    },
    "params train.lr": lambda _: edit(Path("params.yaml"), lambda all: all | {"train": all["train"] | {"lr": 0.5}}),
    f"inputs {PICTURE}": lambda _: PICTURE.write_bytes(PICTURE.read_bytes()[:-1] + b"x"),
    "provenance data/processed/train.provenance.json": lambda _: Path("data/processed/train.provenance.json").unlink(),
    "packages pillow": lambda _: unlock("pillow"),
    "environment MKL_CBWR": lambda monkeypatch: monkeypatch.setenv("MKL_CBWR", "COMPATIBLE"),
    f"weights {WEIGHT}": lambda _: rewritten(),
    "dvc.lock models/ddpm.safetensors": lambda _: edit(RECORD, lambda all: all | {"resolved": {}}),
}


def test_all_holds_whatever_happens_to_what_no_stage_reads(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("README.md", "notes.csv", "cat/.new.png"):
        Path("data/mine", name).write_text("cats and dogs")
    append("src/ddpm/diffusion/sample.py", "UNUSED = 1")
    append("src/ddpm/diffusion/optim.py", "# a comment")
    edit(Path("params.yaml"), lambda all: all | {"filter": {}})
    kinds = ["weights", "metadata", "file", "code", "params", "packages", "inputs", "environment", "provenance"]
    assert told(capsys, MODEL) == ([], [*kinds, "dvc.lock"])
    shutil.move(MODEL, "../got.safetensors")
    shutil.move(RECORD, "../got.provenance.json")
    assert told(capsys, "../got.safetensors")[0] == []


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_is_named_alone(
    name: str, checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    CHANGES[name](monkeypatch)
    assert told(capsys, MODEL)[0] == [name]


def test_the_commit_is_the_first_with_record_and_code(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def commit() -> str:
        Path("dvc.lock").write_text(f"schema: '2.0'  # {md5(MODEL)} {md5(RECORD)}\n")
        Clone(checkout).git("commit", "--quiet", "--all", "--allow-empty", "--message", "next")
        return Clone(checkout).git("rev-parse", "HEAD").strip()

    edit(RECORD, lambda all: all | {"resolved": {}})
    wanted = commit()
    commit()
    call("prove", MODEL)
    assert f"commit {wanted} records it" in capsys.readouterr().out
    code = Path("src/ddpm/diffusion/optim.py")
    text = code.read_text()
    append(code, "UNUSED = 1")
    edit(RECORD, lambda all: all | {"code": all["code"] | {str(code): source.parsed(code.read_bytes()).plain}})
    code.write_text(text)
    commit()  # the record, but not its code
    append(code, "UNUSED = 1")
    assert told(capsys, MODEL)[0] == ["dvc.lock models/ddpm.safetensors"]


def test_a_rebuilt_file_that_differs_is_named_with_the_cause(checkout: Path) -> None:
    made, again = read_provenance(RECORD), checkout.parent / "again"
    shutil.copytree(checkout, again)
    assert compare(made, again) == []
    (again / MODEL).write_bytes(b"other")
    edit(again / RECORD, lambda all: all | {"sha256": "0", "code": all["code"] | {"src/ddpm/diffusion/optim.py": "0"}})
    cause = "likely cause: code src/ddpm/diffusion/optim.py: differs"
    assert compare(made, again) == [f"{MODEL}: the first file that differs", cause]


REFUSED: dict[str, tuple[Callable[[], object], list[object], str]] = {
    "a damaged model": (lambda: MODEL.write_bytes(MODEL.read_bytes()[:-9]), [MODEL], rf"^{MODEL}: "),
    "no provenance": (RECORD.unlink, [MODEL], rf"^{RECORD}: no such file; "),
    "a damaged provenance": (lambda: RECORD.write_text("{"), [MODEL], rf"^{RECORD}: damaged"),
    "a provenance of the kind before": (
        lambda: edit(RECORD, lambda all: {name: all[name] for name in all if name != "version"}),
        [MODEL],
        rf"^{RECORD}: of the kind before code had hashes without comments",
    ),
    "an unknown stage": (lambda: edit(RECORD, lambda all: all | {"stage": "x"}), [MODEL], r"^dvc\.yaml: no stage x"),
    "no checkout": (lambda: shutil.rmtree(".git"), [MODEL], "git clone"),
    "a weight that differs": (rewritten, ["--rebuild", MODEL], rf"^{MODEL}: 1 of \d+ facts"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mistake_ends_in_one_line(what: str, checkout: Path) -> None:
    prepare, words, line = REFUSED[what]
    prepare()
    with pytest.raises(UserError, match=line) as raised:
        call("prove", *words)
    assert "\n" not in str(raised.value)
