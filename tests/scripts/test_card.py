"""The model card: what stands on it, and what it leaves alone."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from exact_stages.console import UserError
from scripts import card
from scripts.runs import Run

SCORES = {
    "b": {
        "samples": {"frechet": 2.0, "frechet_error": 0.5},
        "real": {"frechet": 0.5},
        "test": {"frechet": 1.0},
    }
}
PREPARED = {
    "train": {"images": 1234},
    "test": {"images": 100, "label_counts": {"cat": 70, "<b>dog": 30}},
    "data": {"name": "mine", "shape": [3, 32, 48], "classes": ["cat", "<b>dog"]},
}
LOCK = "stages: {train: {cmd: x, outs: [{path: models/ddpm.safetensors, md5: e1}]}}\n"
DATA = "stages: {preprocess: {cmd: x, deps: [{path: data/fashion_mnist, md5: %s}]}}\n"


def made(params: str = "train: {lr: 0.003}\n", lock: str = LOCK, **more: Any) -> Run:
    """A run of a few numbers; `more` adds or replaces metrics by their stems."""
    values = {
        "evaluate/scores": SCORES,
        "likelihood/bits": {"test": {"bits_per_dim": 2.5}},
        "preprocess/summary": PREPARED,
        "train/summary": {"parameters": 54321},
    }
    files = {f"metrics/{path}.json": json.dumps(value).encode() for path, value in (values | more).items()}
    return Run("mine", files | {"params.yaml": params.encode(), "dvc.lock": lock.encode()}, "0123456789abcdef")


def front(text: str) -> dict[str, Any]:
    """What the Hub reads of a card."""
    read: dict[str, Any] = YAML(typ="safe").load(text.split("---\n")[1])
    return read


def test_a_card_has_data_scores_and_hashes() -> None:
    text = card.card(made())
    assert front(text)["pipeline_tag"] == "unconditional-image-generation"
    assert "mine: 1,234 training images, 100 test images,\n32 x 48 pixels, colour" in text
    assert "It has 54,321 parameters." in text
    assert "| Frechet distance, classifier b |  | 2.0000 +- 0.5000 | 0.5000 |  | 1.0000 |" in text
    assert "bits per dimension" in text
    assert "- models/ddpm.safetensors: e1" in text


def test_facts_are_those_of_the_sampled_model() -> None:
    params = "sample: {model: models/own.safetensors}\n"
    facts = {"data": "mine", "images": 777, "images_seen": 4242, "parameters": 333}
    text = card.card(made(params, **{"sample/scored": {"model": facts}}))
    assert "bits per dimension" not in text
    assert "mine: 777 training images" in text
    assert "333 parameters. It has seen 4,242 images" in text
    others = card.card(made(params, **{"sample/scored": {"model": facts | {"data": "others"}}}))
    assert "The images are not described" in others


@pytest.mark.parametrize(
    ("model", "start", "said"),
    [("models/distilled-2", "base", True), ("models/ddpm", "data/scratch", False), ("own", "base", False)],
)
def test_a_card_names_the_model_that_the_training_began_from(model: str, start: str, said: bool) -> None:
    params = f"sample: {{model: {model}.safetensors}}\ntrain: {{fine_tune_from: {start}}}\n"
    run = made(params, **{"sample/scored": {"model": {"parameters": 333}}})
    assert ("began with the weights of base" in card.card(run)) == said


def test_the_classes_and_test_images_are_those_that_the_model_has_learned() -> None:
    facts = {"data": "mine", "images": 777, "parameters": 333, "classes": ["cat"]}
    text = card.card(made(**{"sample/scored": {"model": facts}}))
    assert "mine: 777 training images, 70 test images,\n32 x 48 pixels, colour, 1 class: cat.\n" in text


def test_names_of_sets_and_classes_are_plain_text() -> None:
    names = ["<b>dog", "*`cat`_$|"]
    data, test = PREPARED["data"] | {"name": "[a](b)\n# c", "classes": names}, {"label_counts": dict.fromkeys(names, 9)}
    text = card.card(made(**{"preprocess/summary": PREPARED | {"data": data, "test": test}}))
    assert r"\<b\>dog, \*\`cat\`\_\$\|." in text
    assert r"# A diffusion model of \[a\](b) \# c" in text
    assert not re.search(r"<b>dog|\[a\]\(b\)", text.split("---\n")[2])


def test_the_licence_is_of_the_set_whose_files_have_the_hash_and_not_of_one_of_that_name() -> None:
    clothes = next(md5 for md5, (name, _) in card.PUBLIC.items() if name == "fashion_mnist")
    for md5, datasets, licence in (("d1", None, None), (clothes, ["fashion_mnist"], "mit")):
        text = card.card(made("data: {set: data/fashion_mnist}\n", DATA % md5))
        assert (front(text).get("datasets"), front(text).get("license")) == (datasets, licence)
        assert ("check them before you share the model" in text) == (licence is None)


def test_lines_of_the_user_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = made()
    monkeypatch.setattr(card, "open_run", lambda _: run)
    card.main()
    own = card.CARD.read_text().replace("\n---\n", "\nlicense: cc-by-4.0\n---\n", 1) + "mine\n"
    card.CARD.write_text(own)
    run = replace(run, commit="f" * 40)
    card.main()
    assert card.CARD.read_text() == own.replace("0123456789ab", "f" * 12)
    card.CARD.write_text("mine\n")
    with pytest.raises(UserError, match=r"^models/README\.md: "):
        card.main()
    assert card.CARD.read_text() == "mine\n"
