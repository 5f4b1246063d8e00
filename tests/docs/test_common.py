"""The stand-ins of the chapters, for where there is neither model nor data."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs/walk"))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    import common

    monkeypatch.setattr(common, "REAL", False)
    monkeypatch.setattr(common, "KEPT", tmp_path)
    return common


def test_digits_of_fonts(common: ModuleType) -> None:
    train, test = common.images("train"), common.images("test")
    assert train.split.labels.bincount().tolist() == [400] * 10
    assert train.split.images.shape == (4000, 1, 28, 28)
    assert torch.equal(train.split.images, common.images("train").split.images)
    seen = train.split.images.flatten(1).float()
    nearest = torch.cdist(test.split.images[:200].flatten(1).float(), seen)
    assert float(nearest.amin()) > 0  # none of the test digits is a training digit
    found = train.split.labels[nearest.argmin(1)]
    assert float((found == test.split.labels[:200]).float().mean()) > 0.5  # and yet they are of the same kind


def test_the_stand_ins_are_kept_and_fit(common: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(common.SHORT, "images", 64)
    monkeypatch.setattr(common, "SMALL", {"channels": (4, 4, 4), "bottleneck_blocks": 1})
    model = common.model()
    assert model.card.guides == ("autoguidance",)
    assert model.card.class_counts == (400,) * 10
    written = (common.KEPT / "small.safetensors").read_bytes()
    assert torch.equal(common.model().network.stem.weight, model.network.stem.weight)
    (common.KEPT / "small.safetensors").write_bytes(b"damaged")
    common.model()
    assert (common.KEPT / "small.safetensors").read_bytes() == written


def test_pictures_and_numbers(common: ModuleType) -> None:
    assert common.rmse(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])) == pytest.approx(2**0.5)
    assert common.sampler(steps=7).steps == 7
    picture = common.grid(torch.zeros(4, 1, 5, 5), columns=2, scale=3)
    assert picture.data[16:24] == bytes([0, 0, 0, 48, 0, 0, 0, 48])  # width and height: (2 (5 + 2) + 2) 3
