"""The page and the card: what stands on them, and what is left out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ddpm.pipeline.console import UserError
from scripts.reporting import charts, page, tables
from scripts.reporting.runs import KEPT, Run
from scripts.results import ROWS
from tests.browser.runs import PARAMS, SCORES, whole_run

ROOT = Path(__file__).parents[2]
SECTIONS = ["data", "forward", "training", "samples", "reverse", "scores", "copies", "bits", "params", "hashes"]
SECTIONS += ["environment"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.vl_convert, "javascript_bundle", lambda *_, **__: "// Vega")


def text(html: str) -> str:
    """What is read of a page, without tags, scripts and runs of blanks."""
    html = re.sub("<(script|style).*?</\\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def specs(html: str) -> list[dict[str, Any]]:
    return [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', html)]


def test_parts_stand_in_the_order_of_the_story() -> None:
    html = page.report(whole_run(), None, None)
    assert re.findall(r'<section id="(\w+)"', html) == SECTIONS
    assert re.findall(r'<a href="#(\w+)"', html) == SECTIONS
    assert "whose stage" not in html
    read = text(html)
    assert "mine : 1,234 training images and 100 test images of 32 " in read
    assert " 48 pixels, in colour, of 2 classes" in read
    assert "It has 54,321 parameters and saw 9,876 images." in read
    assert "data.image_size 32 x 48, their own train.epochs 5.5" in read
    assert "torch 9.9.9 device cpu" in read


def test_nothing_is_fetched_and_every_picture_has_words() -> None:
    html = page.report(whole_run(), whole_run("other", shade=1), None)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", html)
    images = re.findall(r"<img [^>]*>", html)
    assert len(images) == 12, "six of each: by_class takes the place of samples"
    assert all(re.search(r'alt="\w[^"]* of (mine|other)"', image) for image in images)
    assert "default-src 'none'" in html


def test_names_of_classes_are_no_html() -> None:
    html = page.report(whole_run("<i>"), None, None)
    assert "<b>dog" not in html
    assert "<i>" not in html
    (bars,) = (spec for spec in specs(html) if "mark" in spec)
    assert bars["data"]["values"] == [{"class": "cat", "n": 1000}, {"class": "<b>dog", "n": 234}]


def test_a_run_of_nothing_but_params_says_what_is_missing() -> None:
    html = page.report(Run("bare", {"params.yaml": b""}), None, None)
    assert re.findall(r'<section id="(\w+)"', html) == SECTIONS
    assert set(re.findall(r"whose stage <code>(\w+)</code>", html)) == {
        "preprocess", "forward_diffusion", "train", "evaluate", "likelihood",
    }  # fmt: skip
    assert not specs(html)
    assert "It was not scored." in page.card(Run("bare", {}), None)


def test_scores_are_in_their_columns_with_what_they_mean() -> None:
    rows = {row.name: row for row in tables.scores([whole_run(), whole_run("other", **{"evaluate/scores": {}})])}
    assert rows["Frechet distance, classifier b"].cells == ["2.0000 +- 0.5000", "", "1.0000", "0.5000"]
    assert rows["precision, recall"].cells == ["0.250, 0.500", "", "0.750, 1.000", ""]
    assert rows["classification accuracy score"].cells == ["0.5000", "0.5000", "", "0.8750"]
    parts = {row.part: row.name for row in rows.values()}
    assert parts["copies"] == "copying z in pixels, in features"
    assert parts["bits"] == "bits per dimension of test, of training images"
    assert tables.MEANINGS.keys() == ROWS.keys(), "every row of the table of results has its sentence"


def test_scores_that_a_set_of_one_class_does_not_have_are_left_out() -> None:
    scores = {**SCORES, "samples": {"precision": 0.5, "recall": 0.25, "confident_share": None}, "a": None}
    accuracy = {"count": 0, "samples": None, "real": None}
    run = whole_run(**{"evaluate/scores": scores, "classification_accuracy_score/accuracy": accuracy})
    names = [row.name for row in tables.scores([run])]
    assert "precision, recall" in names
    assert not {"recognised", "classification accuracy score"} & set(names)


def test_two_runs_share_each_chart() -> None:
    two = [whole_run(), whole_run("other", shade=1)]
    spec = charts.curves(charts.TRAINING[0], two)
    assert spec
    rows = spec["data"]["values"]
    assert {(row["run"], row["curve"]) for row in rows} == {
        (run, curve) for run in ("mine", "other") for curve in ("training", "validation")
    }
    assert [row["y"] for row in rows if row["run"] == "other" and row["curve"] == "validation"] == [0.5, 0.25]
    assert sum(row["run"] == "mine" and row["curve"] == "training" for row in rows) == 200, "every third of 600"
    assert spec["encoding"]["color"]["field"] == "run"
    assert spec["description"].startswith(
        "Loss while training: training of mine, from 1 to 0.001667; validation of mine"
    )
    alone = charts.curves(charts.TRAINING[0], two[:1])
    assert alone
    assert alone["encoding"]["color"]["field"] == "curve"
    assert charts.curves(charts.TRAINING[0], [Run("bare", {})]) is None


def test_every_curve_of_the_pipeline_has_its_chart() -> None:
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    plots = [plot for stage in pipeline["stages"].values() for plot in stage.get("plots", [])] + pipeline["plots"]
    declared = set()
    for name, plot in (item for each in plots if isinstance(each, dict) for item in each.items()):
        y = plot.get("y", {})
        columns = y if isinstance(y, dict) else {name.replace("${item.steps}", "4"): y}
        declared |= {(file.removeprefix("metrics/"), column) for file, column in columns.items()}
    run = whole_run()
    every = [*charts.FORWARD, *charts.TRAINING, *charts.distillation([run])]
    drawn = {column for chart in every for column in chart.columns.values()}
    assert drawn == {each for each in declared if each[0].split("/")[0] in {"forward_diffusion", "train", "distill"}}


def test_params_beside_the_default() -> None:
    other = whole_run("other", **{"params.yaml": PARAMS.replace("0.003", "1e-05").replace("null", "[8, 16]")})
    main = whole_run("main")
    read = text(page.report(other, main, main))
    assert "param main other model.channels null [8, 16] train.lr 0.003 1e-05" in read
    third = whole_run("third", **{"params.yaml": PARAMS.replace("100", "50")})
    read = text(page.report(other, third, main))
    assert "param default (main) third other schedule.timesteps 100 50 100" in read
    assert "All are as on main." in text(page.report(main, None, main))
    assert "No branch is called main" in text(page.report(main, None, None))


def test_numbers_that_differ_are_listed_with_their_change() -> None:
    bits = {"images": 10, "test": {"bits_per_dim": 2.0}, "train": {"bits_per_dim": 2.25}}
    before, after = whole_run("main"), whole_run("other", **{"likelihood/bits": bits})
    assert tables.changes(tables.metrics(before), tables.metrics(after)) == [
        ["likelihood/bits: test.bits_per_dim", 2.5, 2.0, "-0.5"]
    ]
    assert "1 numbers" not in text(page.report(before, None, None))
    assert "likelihood/bits: test.bits_per_dim 2.5 2.0 -0.5" in text(page.report(after, before, None))


def test_equal_pictures_are_shown_once() -> None:
    html = page.report(whole_run(), whole_run("main"), None)
    assert html.count("<img ") == 6
    assert html.count("mine, and the same of main") == 6


def test_hashes_are_those_of_the_stages_that_there_are() -> None:
    run = whole_run()
    assert tables.hashes(run, run.mapping("dvc.yaml")) == {
        "data": {"data/images": "d1"},
        "models": {"models/ddpm.safetensors": "e1"},
        "code": {"stages/train.py": "c1"},
    }


def test_a_file_that_cannot_be_read_is_named() -> None:
    run = whole_run()
    for path in ("metrics/train/summary.json", "params.yaml", "metrics/train/loss.csv"):
        broken = Run("mine", run.files | {path: b"step,train_loss\n{[x,y"})
        with pytest.raises(UserError, match=f"^{path} of mine: "):
            page.report(broken, None, None)
    assert {"metrics", "params.yaml", "dvc.lock"} < set(KEPT)


def test_card_has_the_front_matter_of_the_hub() -> None:
    hub = pytest.importorskip(
        "huggingface_hub", reason="its client reads the front matter; pip install huggingface_hub"
    )
    prepared = json.loads(whole_run().files["metrics/preprocess/summary.json"])
    prepared["data"]["name"] = "mnist"
    card = hub.ModelCard(page.card(whole_run(**{"preprocess/summary": prepared}), None))
    assert card.data.license is None  # nobody says what that of MNIST is
    assert card.data.datasets == ["mnist"]
    assert card.data.pipeline_tag == "unconditional-image-generation"
    results = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert results["precision"] == 0.25
    assert results["bits per dimension"] == 2.5
    assert "| Frechet distance, classifier b | 2.0000 +- 0.5000 | 1.0000 | 0.5000 |" in card.text
    assert "- `models/ddpm.safetensors`: e1" in card.text


def test_card_of_own_images_claims_no_licence() -> None:
    card = page.card(whole_run(), None)
    assert "license" not in card
    assert "which this card does not know" in card


def test_params_that_have_not_run_are_told_apart() -> None:
    run = whole_run()
    ran = {"stages": {"train": {"params": {"params.yaml": {"train": {"lr": 0.5}, "sample.model": "x"}}}}}
    files = {**run.files, "dvc.lock": json.dumps(ran).encode()}
    for now, told in (({"train": {"lr": 0.25}}, True), ({"train": {"lr": 0.5}}, False)):
        edited = Run(run.name, {**files, "params.yaml": json.dumps(now).encode()})
        assert tables.not_run(edited) == ([("train.lr", 0.25, 0.5)] if told else [])
        assert ("have not run since" in text(page.report(edited, None, None))) == told
