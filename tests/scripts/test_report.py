"""The page and the card: what stands on them, and what is left out."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from scripts import report
from scripts.reporting import page
from scripts.reporting.runs import open_run
from tests.browser.runs import PARAMS, PREPARED, SCORES, whole_run

ROOT = Path(__file__).parents[2]


def text(html: str) -> str:
    """What is read of a page, without tags and runs of blanks."""
    html = re.sub("<style.*?</style>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def front(card: str) -> dict[str, Any]:
    """What the Hub reads of a card."""
    read: dict[str, Any] = YAML(typ="safe").load(card.split("---\n")[1])
    return read


def test_a_page_has_the_pictures_and_facts_of_both_runs_and_fetches_nothing() -> None:
    other = whole_run("other", shade=1, params=PARAMS.replace("0.003", "1e-05"))
    html = page.report([whole_run(), other])
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", html)
    images = re.findall(r"<img [^>]*>", html)
    assert len(images) == 12, "six of each: by_class takes the place of samples"
    assert all(re.search(r'alt="\w[^"]* of (mine|other)"', image) for image in images)
    for fact in ("1,234 training images", "54,321 parameters", "32 x 48, their own", "torch 9.9.9", "0.003 1e-05"):
        assert fact in text(html)
    same = page.report([whole_run(), whole_run("main")])
    assert same.count("<img ") == 6, "equal pictures are shown once"
    card = page.card(whole_run())
    assert front(card)["pipeline_tag"] == "unconditional-image-generation"
    assert "| Frechet distance, classifier b | 2.0000 +- 0.5000 | 1.0000 | 0.5000 |" in card
    assert "- models/ddpm.safetensors: e1" in card


def test_a_page_says_how_samples_were_made_and_what_the_filter_found() -> None:
    samplers = "sample: {population: {sampler: ddpm, guidance: null}, gallery: {sampler: ddim}}\n"
    sampled = {"evaluations": 24, "chosen": {"sample.population.guidance": 1.25}}
    filtered = {"share": 0.951, "clear": 0.9, "clear_by_class": {"cat": 0.97, "dog": 0.8}}
    more = {"sample/population": sampled, "sample/gallery": {"evaluations": 50}, "filter/summary": filtered}
    read = text(page.report([whole_run(params=PARAMS + samplers, **more)]))
    assert "Sampler: ddpm, 24 steps, guidance 1.25." in read
    assert "not filtered. Sampler: ddim, 50 steps." in read
    assert "rejected 4.9 % of the samples" in read
    assert "90.0 % were clear, and 80.0 % of the worst class, dog" in read


def test_facts_are_those_of_the_sampled_model() -> None:
    params = PARAMS + "sample: {model: models/own.safetensors, population: {sampler: ddpm}}\n"
    facts = {"data": "mine", "images": 777, "images_seen": 4242, "class_conditional": False, "parameters": 333}
    run = whole_run(params=params, **{"sample/population": {"model": facts}})
    read, card = text(page.report([run])), page.card(run)
    assert "models/own.safetensors , with 333 parameters" in read
    assert "models/ddpm.safetensors , has 54,321 parameters" in read
    assert "for a given class" not in read
    assert "bits per dimension" not in read + card
    assert "mine: 777 training images" in card
    assert "333 parameters. It has seen 4,242 images" in card
    others = whole_run(params=params, **{"sample/population": {"model": facts | {"data": "others"}}})
    assert "The images are not described" in page.card(others)


@pytest.mark.parametrize(
    ("model", "chosen", "said"),
    [("models/distilled-2", "base", True), ("models/ddpm", "none", False), ("own", "base", False)],
)
def test_a_card_names_the_model_that_the_training_began_from(model: str, chosen: str, said: bool) -> None:
    trained, sampled = {"chosen": {"train.fine_tune_from": chosen}}, {"model": {"parameters": 333}}
    params = PARAMS + f"sample: {{model: {model}.safetensors}}\n"
    card = page.card(whole_run(params=params, **{"train/summary": trained, "sample/population": sampled}))
    assert ("began with the weights of base" in card) == said


@pytest.mark.parametrize(("version", "kept"), [(1, True), (2, False), (None, False)])
def test_scores_of_another_version_are_left_out(
    version: int | None, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"mine": SCORES | {"version": 1}, "other": SCORES | ({"version": version} if version else {})}
    runs = {name: whole_run(name, **{"evaluate/scores": scores}) for name, scores in versions.items()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "open_run", runs.__getitem__)
    monkeypatch.setattr(report, "main_run", lambda: None)
    report.main("mine", "other")
    read = text(Path("build/report.html").read_text())
    assert read.count("2.0000 ±") == 1 + kept
    assert len(capsys.readouterr().out.splitlines()) == 2 - kept


def test_names_of_sets_and_classes_are_plain_text() -> None:
    assert "<i>" not in page.report([whole_run("<i>")])
    data = PREPARED["data"] | {"name": "[a](b)\n# c", "classes": ["<b>dog", "*`cat`_$|"]}
    card = page.card(whole_run(**{"preprocess/summary": PREPARED | {"data": data}}))
    assert r"\<b\>dog, \*\`cat\`\_\$\|." in card
    assert r"# A diffusion model of \[a\](b) \# c" in card
    assert not re.search(r"<b>dog|\[a\]\(b\)", card.split("---\n")[2])


def test_the_licence_is_of_the_set_whose_files_have_the_hash_and_not_of_one_of_that_name() -> None:
    clothes = next(md5 for md5, (name, _) in page.PUBLIC.items() if name == "fashion_mnist")
    run = whole_run(params="data: {set: data/fashion_mnist}\n")
    for md5, datasets, licence in (("d1", None, None), (clothes, ["fashion_mnist"], "mit")):
        card = page.card(replace(run, hashes={"data/fashion_mnist": md5}))
        assert (front(card).get("datasets"), front(card).get("license")) == (datasets, licence)
        assert ("check them before you share the model" in card) == (licence is None)


@pytest.mark.parametrize("record", sorted(path.parent.name for path in ROOT.glob("results/*/record.json")))
def test_records_of_any_age_have_a_page_and_a_card(record: str) -> None:
    run = open_run(f"results/{record}")
    assert len(run.commit) == 40
    html = page.report([run])
    assert "None was selected by hand." in text(html)
    assert html.count("<img ") == 1
    assert page.card(run).startswith("---\n")
