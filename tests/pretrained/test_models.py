"""The models that come with the package: their facts, and the way to float16 and back."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

from ddpm.images.arrays import load_arrays
from ddpm.model import load_model
from ddpm.pretrained import models
from exact_stages.console import UserError
from scripts import pretrained
from scripts.reporting.runs import Run
from tests.cli.generating import tiny_model
from tests import reverse


@pytest.mark.parametrize("name", models.names())
def test_facts_and_weights_agree(name: str) -> None:
    facts = json.loads(models.FOLDER.joinpath(f"{name}.json").read_text())
    data = models.FOLDER.joinpath(f"{name}.safetensors").read_bytes()
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert re.fullmatch("[0-9a-f]{40}", facts["commit"])
    assert {*facts["scores"]} == {*pretrained.OF_USE}
    assert 0.9 < facts["scores"]["class_accuracy"] <= 1
    loaded = models.load_pretrained(name)
    assert (loaded.card.data.name, loaded.card.guides) == (name, ("autoguidance",))
    assert len(data) < 2.1 * sum(each.numel() for each in [*loaded.network.parameters()]) * 2


def test_weights_are_rounded_to_float16_and_come_back_as_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tiny_model(tmp_path, class_conditional=True, guide=True)
    monkeypatch.setattr(models, "FOLDER", tmp_path / "packed")
    pretrained.pack(original, tmp_path / "packed/mine.safetensors")
    assert models.names() == ["mine"]
    assert {each.dtype for each in load_arrays(tmp_path / "packed/mine.safetensors")[0].values()} == {torch.float16}
    loaded, before = models.load_pretrained("mine"), load_model(original)
    assert loaded.card == before.card
    assert loaded.guide
    assert before.guide
    for ours, theirs in ((loaded.network, before.network), (loaded.guide, before.guide)):
        for name, weight in ours.state_dict().items():
            assert weight.dtype is torch.float32
            assert torch.equal(weight, theirs.state_dict()[name].half().float())
    by_path = load_model(tmp_path / "packed/mine.safetensors")
    assert by_path.network.state_dict().keys() == loaded.network.state_dict().keys()


def test_counts_of_batches_stay_whole_numbers(tmp_path: Path) -> None:
    """BatchNorm has such counts."""
    reverse.tiny_model(tmp_path, block="double_conv", patch_size=1, class_conditional=False)
    pretrained.pack(tmp_path / "model.safetensors", tmp_path / "mine.safetensors")
    found = load_model(tmp_path / "mine.safetensors").network.state_dict()
    assert {each.dtype for each in found.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("name", ["fashion", "", "../pretrained/mnist", "mnist.safetensors"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"no such model; choose from mnist$"):
        models.load_pretrained(name)


def test_only_a_model_that_is_up_to_date_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pretrained.MODEL.parent.mkdir()
    pretrained.MODEL.write_bytes(b"weights")
    hashes = {str(pretrained.MODEL): hashlib.md5(b"weights").hexdigest()}
    fine = Run("workspace", {}, stale={"likelihood": "code"}, hashes=hashes)
    assert pretrained.up_to_date(fine) is fine
    for stage in ("train", "evaluate"):
        with pytest.raises(UserError, match=rf"not up to date: {stage} \(train.lr\)"):
            pretrained.up_to_date(Run("workspace", {}, stale={stage: "train.lr"}, hashes=hashes))
    pretrained.MODEL.write_bytes(b"others")
    with pytest.raises(UserError, match=r"not the model of dvc.lock"):
        pretrained.up_to_date(fine)
