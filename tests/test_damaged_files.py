"""A file that is damaged, of another kind or of another network is refused in one line that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.model import load_model
from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.splits import load_samples, load_split, save_split
from ddpm.scores.classifier import Classifier, features_and_logits, load_classifier, save_classifier
from exact_stages.console import UserError
from tests.reverse import tiny_model
from tests.small import CPU, DIGITS, FRUITS, images
from tests.stages.written import classifier_params


def model(path: Path) -> None:
    tiny_model(path.parent, timesteps=(9, 4), images_seen=320)
    (path.parent / "model.safetensors").rename(path)


def classifier(path: Path) -> None:
    save_classifier(path, Classifier(classifier_params(), DIGITS))


def split(path: Path) -> None:
    labels, groups = torch.tensor([2, 0, 1, 2]), torch.tensor([0, 1, 1, 3])
    save_split(path, FRUITS, labels, groups, (6, 0, 2), [images(4, FRUITS.shape)])


def samples(path: Path) -> None:
    frames = {name: images(6).view(2, 3, *DIGITS.shape) for name in ("x_t", "pred_x_start")}
    facts = {"data": DIGITS.model_dump(mode="json"), "classes": [3, 7], "kept_t": [4, 0]}
    save_arrays(path, {"images": images(3), "labels": torch.tensor([7, 3, 7]), **frames}, facts)


KINDS: dict[Callable[[Path], None], Callable[[Path], Any]] = {
    model: load_model,
    classifier: load_classifier,
    split: load_split,
    samples: load_samples,
}


def refusal(load: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_or_of_another_kind_is_refused(kind: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    kind(path)
    for load in KINDS.values():
        if load is not KINDS[kind]:
            assert "\n" not in refusal(load, path)
    data = path.read_bytes()
    for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert "\n" not in refusal(KINDS[kind], path)
    path.unlink()
    assert "no such file" in refusal(KINDS[kind], path)


def change(path: Path, changes: Callable[[Tensor], Tensor], *names: str) -> None:
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays | {name: changes(arrays[name].clone()) for name in names}, metadata)


@pytest.mark.parametrize("value", [-torch.inf, torch.nan])
def test_a_weight_that_is_not_finite_is_refused_by_name(value: float, tmp_path: Path) -> None:
    model(tmp_path / "file")
    name = "bottleneck.0.conv1.weight"
    change(tmp_path / "file", lambda weight: weight.index_fill_(0, torch.tensor(0), value), name)
    assert refusal(load_model, tmp_path / "file").startswith(f"{name} is not finite")


def test_features_that_are_not_finite_end_in_one_line(tmp_path: Path) -> None:
    classifier(tmp_path / "classifier")
    names = "levels.2.1.weight", "levels.2.4.weight"
    change(tmp_path / "classifier", lambda weight: torch.full_like(weight, 3e38), *names)
    with pytest.raises(UserError, match=r"^classifier: its features of images are not finite"):
        features_and_logits(load_classifier(tmp_path / "classifier"), images(2), CPU.device)
