"""The stage likelihood: of which images and of which model the bounds are."""

import json
from pathlib import Path

import pytest
import torch

from exact_stages.console import UserError
from exact_stages.stage import Stage
from stages import likelihood
from tests.cli.generating import tiny_model
from tests.small import DIGITS, images
from tests.stages.written import write_split

LABELS = torch.tensor([1, 7, 3, 7, 9, 1, 7])  # the model has seen no nine


def test_both_bounds_are_of_the_classes_that_have_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    Path("params.yaml").write_text("likelihood: {images: 100}\nsample: {model: models/distilled-4.safetensors}")
    Path("models").mkdir()
    tiny_model(Path("models"), True).rename("models/ddpm.safetensors")
    found = []
    for rows in (LABELS >= 0, LABELS == 7):
        write_split("test", DIGITS, images(2), torch.tensor([7, 7]))
        write_split("train", DIGITS, images(7)[rows], LABELS[rows])
        likelihood.main(Stage("likelihood"))
        found.append(json.loads(Path("metrics/likelihood/bits.json").read_text()))
    assert found[0] == found[1]
    assert found[0]["model"] == "models/ddpm.safetensors"
    write_split("test", DIGITS, images(2), torch.tensor([9, 9]))
    with pytest.raises(UserError, match=r"^train\.classes, data\.test: "):
        likelihood.main(Stage("likelihood"))
