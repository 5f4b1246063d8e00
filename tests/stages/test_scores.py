"""The stages evaluate, draw, filter and likelihood: what they write, and what they refuse."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ddpm.images.splits import load_samples
from ddpm.scores.classifier import Classifier, features_and_logits, load_classifier, save_classifier
from exact_stages.console import UserError
from exact_stages.stage import Stage
from stages import draw, evaluate, filter, likelihood
from tests.cli.generating import tiny_model
from tests.small import CPU, DIGITS, FRUITS, images
from tests.stages.written import classifier_params, write_samples, write_split

CARD = FRUITS.model_copy(update={"classes": ("fig", "猫", "🍎")})  # the last two in no font of matplotlib
LABELS = torch.arange(300) % 3
IMAGES = images(300, CARD.shape)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with all that both stages read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    Path("params.yaml").write_text("filter: {least_probability: 0}\n")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        save_classifier(Path(f"models/classifier-{name}.safetensors"), Classifier(classifier_params(seed=seed), CARD))
    write_split("train", CARD, IMAGES[:200], LABELS[:200])
    write_split("test", CARD, IMAGES[200:240], LABELS[200:240])
    for name, kept in (("scored", 0), ("preview", 2)):
        write_samples(name, CARD, IMAGES[240:], LABELS[240:], [0, 1, 2], kept)
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def test_classes_of_any_script_are_filtered_scored_and_pictured_without_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    filter.main(Stage("filter"))
    found = json.loads(Path("metrics/filter/summary.json").read_text())
    assert found["share_by_class"] == dict.fromkeys(CARD.classes, 1)
    assert "猫" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        evaluate.main(Stage("evaluate"))
        draw.main(Stage("draw"))
    made = {"set": "scored", "sampler": "ddpm", "evaluations": 3, "guidance": 1.0}
    filtered = load_samples(Path("data/samples/filtered.safetensors"))
    assert filtered.made == made | {"kept": 1.0}
    assert filtered.clear.keys() == {*CARD.classes}
    pictures = {"by_class.png", "denoising.png", "neighbours.png", "reverse.gif", "samples.png"}
    assert {path.name for path in Path("metrics/draw").iterdir()} == pictures
    found = json.loads(Path("metrics/evaluate/scores.json").read_text())
    assert (found["count"], found["test"]["images"]) == (60, 39)  # 13 or 14 of each class are test images
    rows = {"a", "b", "pixels", "samples", "test", "real"}
    assert found.keys() == {"version", "count", "equal_samples", "made_in", *rows}
    assert None not in [found[row]["conditional_accuracy"] for row in ("samples", "test")]


def test_samples_without_labels_stand_in_the_classes_that_classifier_b_sees() -> None:
    samples = IMAGES[240:]
    _, logits = features_and_logits(load_classifier(Path("models/classifier-b.safetensors")), samples, CPU.device)
    seen, found = 2 * logits[:, [0, 2]].argmax(1), []
    for labels in (None, seen):
        write_samples("filtered", CARD, samples, labels, [0, 2])
        draw.main(Stage("draw"))
        found.append(Path("metrics/draw/by_class.png").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("other", [{"shape": (1, 16, 8)}, {"classes": ("a", "b")}])
def test_samples_of_what_the_classifiers_do_not_know_are_refused(other: dict[str, tuple[int | str, ...]]) -> None:
    card = CARD.model_copy(update=other)
    write_samples("scored", card, images(8, card.shape), torch.arange(8) % 2, [0, 1])
    with pytest.raises(UserError, match=r"^sample\.model: "):
        filter.main(Stage("filter"))
    assert not Path("data/samples/filtered.safetensors").exists()


def test_both_bounds_are_of_the_classes_that_have_test_images() -> None:
    labels = torch.tensor([1, 7, 3, 7, 9, 1, 7])  # the model has seen no nine
    Path("params.yaml").write_text("likelihood: {images: 100}\nsample: {model: models/distilled-4.safetensors}")
    tiny_model(Path("models")).rename("models/ddpm.safetensors")
    found = []
    for rows in (labels >= 0, labels == 7):
        write_split("test", DIGITS, images(2), torch.tensor([7, 7]))
        write_split("train", DIGITS, images(7)[rows], labels[rows])
        likelihood.main(Stage("likelihood"))
        found.append(json.loads(Path("metrics/likelihood/bits.json").read_text()))
    assert found[0] == found[1]
    assert found[0]["model"] == "models/ddpm.safetensors"
    write_split("test", DIGITS, images(2), torch.tensor([9, 9]))
    with pytest.raises(UserError, match=r"^train\.classes, data\.test: "):
        likelihood.main(Stage("likelihood"))
