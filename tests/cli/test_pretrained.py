"""`--pretrained`: a model that comes with the package samples, is exported, and is the demo's for want of another."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ddpm.model import load_model
from exact_stages.console import UserError
from scripts import demo
from tests.cli.generating import call, ended, started, tiny_model


def test_samples_are_digits_of_the_classes_that_are_asked_for(tmp_path: Path) -> None:
    middle = {}
    for label in "01":
        words = ["--classes", label, "--count", 16, "--steps", 8, "--format", "npz", "--out", tmp_path / label]
        call("generate", "--pretrained", "mnist", *words)
        images = np.load(tmp_path / label / "images.npz")["images"]
        assert images.shape == (16, 28, 28)
        middle[label] = images[:, 12:16, 13:15].mean()
    assert middle["0"] < 60, "a hole"
    assert middle["1"] > 150, "a stroke"


def test_it_needs_no_repository_and_one_class_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["generate", "--pretrained", "mnist", "--classes", "7", "--count", "2", "--steps", "2", "--out", "sevens"]
    code, said = ended(started(*words))
    assert code == 0, said
    assert (tmp_path / "sevens/labels.csv").read_text() == "image,label\n000000.png,7\n000001.png,7\n"


@pytest.mark.parametrize("command", ["generate", "export"])
def test_model_and_pretrained_exclude_one_another(command: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, class_conditional=False)
    out = tmp_path / "out.onnx"
    for words in ([], ["--model", model, "--pretrained", "mnist"]):
        with pytest.raises(UserError, match=r"^give either --model FILE or --pretrained NAME, one of: mnist$"):
            call(command, *words, "--out", out)
    with pytest.raises(UserError, match=r"^--pretrained cifar: no such model; choose from mnist$"):
        call(command, "--pretrained", "cifar", "--out", out)
    assert not out.exists()


def test_demo_has_it_where_no_model_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    built: list[tuple[str, int]] = []

    def build(_: Path, models: list[Path]) -> None:
        [model] = models
        built.append((model.name, load_model(model).card.schedule.timesteps))

    monkeypatch.setattr(demo, "build", build)
    demo.main([], Path("out"), 0, serve=False)
    assert built.pop() == ("mnist.safetensors", 1000)
    assert "has the pretrained model mnist" in capsys.readouterr().out
    Path("models").mkdir()
    tiny_model(Path("models"), class_conditional=False).rename(demo.MODEL)
    demo.main([], Path("out"), 0, serve=False)
    assert built.pop() == ("ddpm.safetensors", 20)
    assert "pretrained" not in capsys.readouterr().out


def test_a_wheel_has_all_that_sampling_needs(tmp_path: Path) -> None:
    source = Path(demo.__file__).parents[1]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source / name, tmp_path)
    shutil.copytree(source / "src/ddpm", tmp_path / "src/ddpm", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    [wheel] = tmp_path.glob("ddpm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name.startswith("ddpm/")}
    packaged = [path for path in (tmp_path / "src").rglob("*") if path.suffix in (".py", ".json", ".safetensors")]
    assert kept == {path.relative_to(tmp_path / "src").as_posix(): path.read_bytes() for path in packaged}
    assert {"ddpm/cli/main.py", "ddpm/pretrained/mnist.json", "ddpm/pretrained/mnist.safetensors"} <= kept.keys()
