"""The models that come with the package: their facts, the way to float16 and back, and `--pretrained`."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from ddpm.diffusion.model import load_model
from ddpm.pretrained import models
from exact_stages.console import UserError
from scripts import demo
from scripts.publish import pack
from tests.cli.generating import call, ended, started, tiny_model


@pytest.mark.parametrize("name", models.names())
def test_facts_and_weights_agree(name: str) -> None:
    facts = json.loads(models.FOLDER.joinpath(f"{name}.json").read_text())
    data = models.FOLDER.joinpath(f"{name}.safetensors").read_bytes()
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert re.fullmatch("[0-9a-f]{40}", facts["commit"])
    loaded = models.load_pretrained(name)
    assert (loaded.card.data.name, loaded.card.guides) == (name, ("autoguidance",))
    assert len(data) < 2.1 * sum(each.numel() for each in [*loaded.network.parameters()]) * 2


def test_weights_are_float16_and_come_back_as_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tiny_model(tmp_path, guides=("autoguidance",))
    pack(original, tmp_path / "packed/mine.safetensors")
    monkeypatch.setattr(models, "FOLDER", tmp_path / "packed")
    assert models.names() == ["mine"]
    loaded, before = models.load_pretrained("mine"), load_model(original)
    assert loaded.card == before.card
    for ours, theirs in ((loaded.network, before.network), (loaded.guide, before.guide)):
        for name, weight in ours.state_dict().items():
            assert weight.dtype is torch.float32
            assert torch.equal(weight, theirs.state_dict()[name].half().float())


def test_it_needs_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["generate", "--pretrained", "mnist", "--classes", "7", "--count", "2", "--steps", "2", "--out", "sevens"]
    code, said = ended(started(*words))
    assert code == 0, said
    assert (tmp_path / "sevens/labels.csv").read_text() == "image,label\n000000.png,7\n000001.png,7\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("generate", "give either --model FILE or --pretrained NAME, one of: mnist"),
        ("export --model {} --pretrained mnist", "give either --model FILE or --pretrained NAME, one of: mnist"),
        ("generate --pretrained ../pretrained/mnist", "--pretrained .*: no such model; choose from mnist"),
    ],
)
def test_which_model_must_be_clear(words: str, message: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path, class_conditional=False)
    with pytest.raises(UserError, match=f"^{message}$"):
        call(*words.format(model).split(), "--out", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_demo_has_it_where_no_model_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built: list[Path] = []
    monkeypatch.setattr(demo, "build", lambda _, models: built.extend(models))
    demo.main([], Path("out"))
    Path("models").mkdir()
    tiny_model(Path("models"), class_conditional=False).rename(demo.MODEL)
    demo.main([], Path("out"))
    assert [path.name for path in built] == ["mnist.safetensors", "ddpm.safetensors"]


def test_a_wheel_has_all_that_sampling_needs(tmp_path: Path) -> None:
    source = Path(demo.__file__).parents[1]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source / name, tmp_path)
    shutil.copytree(source / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    [wheel] = tmp_path.glob("ddpm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        kept = {name for name in archive.namelist() if "dist-info" not in name}
    packaged = [path for path in (tmp_path / "src").rglob("*") if path.suffix in (".py", ".json", ".safetensors")]
    assert kept == {path.relative_to(tmp_path / "src").as_posix() for path in packaged if "egg-info" not in str(path)}
    assert {"ddpm/cli/main.py", "ddpm/pretrained/mnist.json", "ddpm/pretrained/mnist.safetensors"} <= kept
