"""The page and the card: what stands on them, and what is left out."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from exact_stages.console import UserError
from scripts.reporting import charts, page, tables
from scripts.reporting.runs import Run, open_run
from scripts.results import ROWS
from tests.browser.runs import PARAMS, PREPARED, whole_run

ROOT = Path(__file__).parents[2]
SECTIONS = ["data", "forward", "training", "samples", "reverse", "scores", "copies", "bits", "params", "hashes"]
SECTIONS += ["environment"]
SAMPLERS = "sample: {population: {sampler: ddpm, guidance: null}, gallery: {sampler: ddim}}\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.vl_convert, "javascript_bundle", lambda *_, **__: "// Vega")


def text(html: str) -> str:
    """What is read of a page, without tags, scripts and runs of blanks."""
    html = re.sub("<(script|style).*?</\\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def specs(html: str) -> list[dict[str, Any]]:
    return [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', html)]


def test_a_page_has_all_parts_and_fetches_nothing() -> None:
    html = page.report([whole_run(), whole_run("other", shade=1)], None)
    assert [each for each in re.findall(r'<section id="(\w+)"', html) if each != "metrics"] == SECTIONS
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", html)
    images = re.findall(r"<img [^>]*>", html)
    assert len(images) == 12, "six of each: by_class takes the place of samples"
    assert all(re.search(r'alt="\w[^"]* of (mine|other)"', image) for image in images)
    read = text(html)
    for fact in ("1,234 training images", "54,321 parameters", "9,876 images", "32 x 48, their own", "torch 9.9.9"):
        assert fact in read
    same = page.report([whole_run(), whole_run("main")], None)
    assert same.count("<img ") == 6, "equal pictures are shown once"


@pytest.mark.parametrize(
    ("sampled", "sentence"),
    [
        ({"evaluations": 1, "follows": {}}, "Each takes 1 step of the sampler ddpm."),
        (
            {"evaluations": 24, "follows": {"sample.population.guidance": 1.25}},
            "Each takes 24 steps of the sampler ddpm, with a guidance of 1.25: steps at middle noise levels move away",
        ),
    ],
)
def test_a_page_says_how_samples_were_made(sampled: dict[str, Any], sentence: str) -> None:
    run = whole_run(**{"params.yaml": PARAMS + SAMPLERS})
    run.files["metrics/sample/population.json"] = json.dumps(sampled).encode()
    run.files["metrics/sample/gallery.json"] = json.dumps({"evaluations": 50}).encode()
    read = text(page.report([run], None))
    assert sentence in read
    assert "not filtered. Each takes 50 steps of the sampler ddim." in read


def test_facts_are_those_of_the_sampled_model() -> None:
    run = whole_run(
        **{"params.yaml": PARAMS + "sample: {model: models/own.safetensors, population: {sampler: ddpm}}\n"}
    )
    facts = {"data": "mine", "images": 777, "images_seen": 4242, "class_conditional": False, "parameters": 333}
    run.files["metrics/sample/population.json"] = json.dumps({"model": facts}).encode()
    read, card = text(page.report([run], None)), page.card(run)
    assert "models/own.safetensors , with 333 parameters" in read
    assert "models/ddpm.safetensors , has 54,321 parameters" in read
    assert "for a given class" not in read
    assert "bits per dimension" not in read + card
    assert "mine: 777 training images" in card
    assert re.findall("[0-9,]+ (?:parameters|images, counting repeats)", card) == [
        "333 parameters",
        "4,242 images, counting repeats",
    ]
    run.files["metrics/sample/population.json"] = json.dumps({"model": facts | {"data": "others"}}).encode()
    assert "The images are not described" in page.card(run)


def test_a_run_of_nothing_but_params_says_what_is_missing() -> None:
    html = page.report([Run("bare", {"params.yaml": b""}, stale={"train": "train.lr"})], None)
    assert re.findall(r'<section id="(\w+)"', html) == SECTIONS
    missing = dict(re.findall(r"because its stage <code>(\w+)</code>\s+(is not up to date|wrote no such file)", html))
    assert {name for name, why in missing.items() if why == "wrote no such file"} == {
        "preprocess", "forward_diffusion", "evaluate", "likelihood",
    }  # fmt: skip
    assert missing["train"] == "is not up to date"
    assert not specs(html)
    assert "The model was not scored." in page.card(Run("bare", {}))


def test_names_of_sets_and_classes_are_plain_text() -> None:
    html = page.report([whole_run("<i>")], None)
    assert "<b>dog" not in html
    assert "<i>" not in html
    (bars,) = (spec for spec in specs(html) if "mark" in spec)
    assert bars["data"]["values"] == [{"class": "cat", "n": 1000}, {"class": "<b>dog", "n": 234}]
    data = PREPARED["data"] | {"name": "[a](b)\n# c", "classes": ["<b>dog", "*`cat`_$|"]}
    card = page.card(whole_run(**{"preprocess/summary": PREPARED | {"data": data}}))
    assert r"\<b\>dog, \*\`cat\`\_\$\|." in card
    assert r"# A diffusion model of \[a\](b) \# c" in card
    assert not re.search(r"<b>dog|\[a\]\(b\)", card.split("---\n")[2])


def test_scores_stand_in_their_part_of_the_page() -> None:
    rows = tables.scores([whole_run(), whole_run("other", **{"evaluate/scores": {}})])
    cells = {row.name: row.cells for row in rows}
    assert cells["Frechet distance, classifier b"] == ["2.0000 +- 0.5000", "", "1.0000", "0.5000"]
    assert cells["classification accuracy score"] == ["0.5000", "0.5000", "", "0.8750"]
    assert "recognised" not in cells, "no file has it"
    assert {row.name.split()[0] for row in rows if row.part == "copies"} == {"copying"}
    assert {row.name.split()[0] for row in rows if row.part == "bits"} == {"bits"}
    assert tables.MEANINGS.keys() == ROWS.keys(), "every row of the table of results has its sentence"


def test_every_curve_of_the_pipeline_has_its_chart() -> None:
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    plots = [plot for stage in pipeline["stages"].values() for plot in stage.get("plots", [])] + pipeline["plots"]
    declared = set()
    for name, plot in (item for each in plots if isinstance(each, dict) for item in each.items()):
        y = plot.get("y", {})
        columns = y if isinstance(y, dict) else {name.replace("${item.steps}", "4"): y}
        declared |= {(file.removeprefix("metrics/"), column) for file, column in columns.items()}
    every = [*charts.FORWARD, *charts.TRAINING, *charts.distillation([whole_run()])]
    drawn = {column for chart in every for column in chart.columns.values()}
    assert drawn == {each for each in declared if each[0].split("/")[0] in {"forward_diffusion", "train", "distill"}}


def test_what_differs_is_listed() -> None:
    bits = {"images": 10, "test": {"bits_per_dim": 2.0}, "train": {"bits_per_dim": 2.25}}
    changed = {"params.yaml": PARAMS.replace("0.003", "1e-05"), "likelihood/bits": bits}
    other, main = whole_run("other", **changed), whole_run("main")
    read = text(page.report([other, main], main))
    assert "param main other train.lr 0.003 1e-05" in read
    assert "likelihood/bits: test.bits_per_dim 2.5 2.0 -0.5" in read
    third = whole_run("third", **{"params.yaml": PARAMS.replace("100", "50")})
    read = text(page.report([other, third], main))
    assert "param default (main) third other schedule.timesteps 100 50 100" in read


def test_a_file_that_cannot_be_read_is_named() -> None:
    run = whole_run()
    for path in ("metrics/train/summary.json", "params.yaml", "metrics/train/loss.csv"):
        broken = Run("mine", run.files | {path: b"step,train_loss\n{[x,y"})
        with pytest.raises(UserError, match=f"^{path} of mine: "):
            page.report([broken], None)


def test_card_has_the_front_matter_of_the_hub() -> None:
    card = page.card(whole_run())
    front = YAML(typ="safe").load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "unconditional-image-generation"
    values = {each["type"]: each["value"] for each in front["model-index"][0]["results"][0]["metrics"]}
    assert (values["precision"], values["bits per dimension"]) == (0.25, 2.5)
    assert "| Frechet distance, classifier b | 2.0000 +- 0.5000 | 1.0000 | 0.5000 |" in card
    assert "- models/ddpm.safetensors: e1" in card
    assert front["model-index"][0]["results"][0]["dataset"] == {"name": "mine", "type": "imagefolder"}


def test_the_licence_is_of_the_set_whose_files_have_the_hash_and_not_of_one_of_that_name() -> None:
    lock = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]["preprocess"]["deps"]
    mnist = {dep["path"]: dep["md5"] for dep in lock}["data/mnist"]
    clothes = next(md5 for md5, (name, _) in page.PUBLIC.items() if name == "fashion_mnist")
    for md5, datasets, licence in (("d1", None, None), (mnist, ["mnist"], None), (clothes, ["fashion_mnist"], "mit")):
        prepared = PREPARED | {"data": PREPARED["data"] | {"name": "fashion_mnist"}}
        run = whole_run(**{"preprocess/summary": prepared, "params.yaml": "data: {set: data/fashion_mnist}\n"})
        card = page.card(replace(run, hashes={"data/fashion_mnist": md5}))
        front = YAML(typ="safe").load(card.split("---\n")[1])
        assert (front.get("datasets"), front.get("license")) == (datasets, licence)
        assert ("check them before you share the model" in card) == (licence is None)


@pytest.mark.parametrize("start", ["data/base.safetensors", page.NO_START])
def test_a_card_names_the_model_that_the_training_began_with(start: str) -> None:
    card = page.card(whole_run(**{"params.yaml": f"train: {{start: {start}}}\n", "train/summary": {"parameters": 1}}))
    assert (start in card) == (start != page.NO_START)


def test_a_card_that_is_made_anew_keeps_the_lines_of_the_user() -> None:
    first = page.card(whole_run(**{"train/summary": {"parameters": 1}}))
    edited = first.replace("\n---\n", "\nlicense: cc-by-4.0\n---\n", 1) + "By permission of <!-- all -->.\n"
    new = page.card(whole_run(**{"train/summary": {"parameters": 22}}))
    assert page.renewed(new, edited) == new.replace("\n---\n", "\nlicense: cc-by-4.0\n---\n", 1) + (
        "By permission of <!-- all -->.\n"
    )
    assert "22 parameters" in new
    assert YAML(typ="safe").load(page.renewed(new, edited).split("---\n")[1])["license"] == "cc-by-4.0"
    with pytest.raises(ValueError, match="zip"):
        page.renewed(new, first.replace("# end:", "#"))
    ignored = ["git", "check-ignore", "--no-index", "models/README.md", "models/ddpm.safetensors"]
    assert subprocess.run(ignored, cwd=ROOT, capture_output=True, text=True).stdout == "models/ddpm.safetensors\n"


@pytest.mark.parametrize("record", sorted(path.parent.name for path in ROOT.glob("results/*/run.json")))
def test_records_of_any_age_have_a_page_and_a_card(record: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = open_run(f"results/{record}")
    assert len(run.commit) == 40
    assert tables.scores([run])
    assert "None was selected by hand." in text(page.report([run], None))
    assert page.card(run).startswith("---\n")


def test_the_page_says_what_the_filter_found() -> None:
    found = {"share": 0.951, "clear": 0.9, "clear_by_class": {"cat": 0.97, "dog": 0.8}}
    files = whole_run().files | {"metrics/filter/summary.json": json.dumps(found).encode()}
    read = text(page.report([Run("mine", files)], None))
    assert "rejected 4.9 % of the samples" in read
    assert "90.0 % were clear, and 80.0 % of the worst class, dog" in read
