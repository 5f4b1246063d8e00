"""The filter: which images of the population are kept, and what is said of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.classifier.model import Classifier, features_and_logits, load_classifier, save_classifier
from ddpm.images.card import DataCard
from ddpm.images.splits import load_samples
from ddpm.pipeline.console import UserError
from ddpm.pipeline.stage import Stage
from stages.filter import main
from tests.small import DIGITS, images
from tests.stages.written import classifier_params, write_samples

CPU = torch.device("cpu")
ONE_CLASS = DIGITS.model_copy(update={"classes": ("kite",)})
IMAGES = (images(200).float() * torch.linspace(0, 1, 200).view(-1, 1, 1, 1)).to(torch.uint8)  # darker and lighter
FILE = Path("models/classifier-a.safetensors")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    classifier(DIGITS)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def classifier(card: DataCard) -> None:
    """One whose answers differ: its last layer is larger than it begins."""
    torch.manual_seed(0)
    model = Classifier(classifier_params(), card)
    with torch.no_grad():
        model.head.weight.mul_(3e4)
    save_classifier(FILE, model)


def filtered(least: float) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Arrays and facts of what is kept, and the summary."""
    Path("params.yaml").write_text(f"filter: {{least_probability: {least}}}\n")
    main(Stage("filter"))
    arrays, _, facts = load_samples(Path("data/samples/filtered.safetensors"))
    return arrays, facts, json.loads(Path("metrics/filter/summary.json").read_text())


def probability() -> Tensor:
    """Of each class (200, 10)."""
    return features_and_logits(load_classifier(FILE), IMAGES, CPU)[1].softmax(1)


def test_kept_is_what_gets_its_class_with_that_probability() -> None:
    labels = probability().argmax(1)
    labels[::2] = (labels[::2] + 1) % 10  # half of them are of a class that the classifier does not see
    write_samples("population", DIGITS, IMAGES, labels, [*range(10)], 3)
    least = float(probability().max(1).values.median())
    arrays, facts, summary = filtered(least)
    own = probability()[torch.arange(200), labels]
    rows = (own >= least).nonzero().squeeze(1)
    assert 10 < len(rows) < 100
    assert torch.equal(arrays["images"], IMAGES[rows])
    assert torch.equal(arrays["labels"], labels[rows])
    for name in ("x_t", "pred_x_start"):
        assert arrays[name].shape == (3, len(rows), 1, 28, 28)
    assert facts["kept_t"] == [0, 1, 2]
    of_class = [float((own[labels == label] >= least).double().mean()) for label in labels.unique()]
    assert summary == {
        "drawn": 200,
        "kept": len(rows),
        "share": round(len(rows) / 200, 4),
        "least_share": round(min(of_class), 4),
    }


def test_without_classes_asked_for_the_likeliest_of_those_trained_on_counts() -> None:
    known = sorted({*range(10)} - {int(probability().mean(0).argmax())})
    write_samples("population", DIGITS, IMAGES, None, known)
    own = probability()[:, known].amax(1)
    least = float(own.median())
    arrays, _, summary = filtered(least)
    assert torch.equal(arrays["images"], IMAGES[own >= least])
    assert "labels" not in arrays
    assert 0 < summary["kept"] == len(arrays["images"]) < 200
    assert summary["kept"] != int((probability().amax(1) >= least).sum())


def test_zero_keeps_all() -> None:
    write_samples("population", DIGITS, IMAGES, torch.arange(200) % 10, [*range(10)], 2)
    arrays, facts, summary = filtered(0)
    before, _, known = load_samples(Path("data/samples/population.safetensors"))
    assert facts == known
    assert arrays.keys() == before.keys()
    assert all(torch.equal(arrays[name], before[name]) for name in before)
    assert summary == {"drawn": 200, "kept": 200, "share": 1.0, "least_share": 1.0}


def test_of_one_class_all_are_kept() -> None:
    classifier(ONE_CLASS)
    write_samples("population", ONE_CLASS, IMAGES, None, [0])
    arrays, _, summary = filtered(0.9)
    assert torch.equal(arrays["images"], IMAGES)
    assert summary["kept"] == 200


def few(likely: int) -> float:
    """Write samples of which so many, at most six, get their class with the probability that is returned."""
    own, order = probability(), probability().amax(1).argsort(descending=True)
    labels = own.argmin(1)
    labels[order[:likely]] = own.argmax(1)[order[:likely]]
    write_samples("population", DIGITS, IMAGES, labels, [*range(10)])
    return float(own.amax(1)[order[5]]) - 1e-4


@pytest.mark.parametrize("likely", [0, 1, 5])
def test_where_few_are_kept_nothing_is_written(likely: int) -> None:
    least = few(likely)
    message = (
        f"to {likely} of 200 images drawn classifier a gives their class with {least:g} or more, "
        "and the scores need more than 5; train longer, or set 0, which keeps all"
    )
    with pytest.raises(UserError, match=rf"^filter\.least_probability: {re.escape(message)}"):
        filtered(least)
    assert not Path("data/samples/filtered.safetensors").exists()
    assert not Path("metrics/filter").exists()


def test_six_are_enough() -> None:
    assert filtered(few(6))[2]["kept"] == 6


def test_no_more_are_needed_than_were_drawn() -> None:
    write_samples("population", DIGITS, IMAGES[:5], torch.arange(5), [*range(10)])
    assert filtered(0)[2]["kept"] == 5  # the scores say what they lack


@pytest.mark.parametrize(
    "other", [{"shape": (3, 28, 28)}, {"classes": ("a", "b", "c")}, {"classes": (*map(str, range(12)),)}]
)
def test_samples_of_what_the_classifiers_do_not_know_are_refused(other: dict[str, Any]) -> None:
    card = DIGITS.model_copy(update={"name": "signs", **other})
    write_samples("population", card, images(8, card.shape), torch.arange(8) % 3, [0, 1, 2])
    said = rf"^sample\.model: it draws signs, which is not what the classifiers know, {DIGITS.name}$"
    with pytest.raises(UserError, match=said):
        filtered(0.5)
