"""The whole pipeline with real dvc: its outputs, experiments, the queue, plots, remotes and the same bytes again."""

import csv
import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dvc_clone import STAGES, Built, Clone, git_clone, ran, restored
from PIL import Image
from ruamel.yaml import YAML

from ddpm.networks.checkpoint import load_model
from ddpm.networks.classifier import load_classifier
from ddpm.runtime.arrays import load_arrays

pytestmark = pytest.mark.pipeline
AFTER_TRAIN_PARAMS = {
    "train",
    "sample@gallery",
    "sample@population",
    "evaluate",
    "likelihood",
    "classification_accuracy_score",
}
PICTURES = [
    "metrics/forward_diffusion/strip.png",
    "metrics/evaluate/by_class.png",
    "metrics/evaluate/samples.png",
    "metrics/evaluate/denoising.png",
    "metrics/evaluate/neighbours.png",
    "metrics/evaluate/classes.png",
]
ARRAYS = [
    "data/processed/test.safetensors",
    "data/processed/train.safetensors",
    "data/samples/gallery.safetensors",
    "data/samples/population.safetensors",
]


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


class Curve(NamedTuple):
    """A plot of columns of csv files, as dvc.yaml declares it."""

    title: str
    x: str
    y: dict[str, list[str]]  # the columns by file


def declared_curves(clone: Clone) -> Iterator[Curve]:
    """Those at the top level of dvc.yaml, and those of the stages."""
    pipeline = YAML(typ="safe").load(clone.path / "dvc.yaml")
    entries = [*pipeline["plots"], *(plot for stage in pipeline["stages"].values() for plot in stage.get("plots", []))]
    for entry in entries:
        ((name, plot),) = entry.items() if isinstance(entry, dict) else ((entry, {}),)
        if "y" in plot:
            y = plot["y"] if isinstance(plot["y"], dict) else {name: plot["y"]}
            columns = {file: [names] if isinstance(names, str) else names for file, names in y.items()}
            yield Curve(plot["title"], plot["x"], columns)


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as opened:
        return list(csv.DictReader(opened))


def experiment_names(clone: Clone) -> list[str]:
    return clone.dvc("exp", "list", "--name-only").split()


def experiment_file(clone: Clone, name: str, file: str) -> bytes:
    """A file that git keeps, from the commit of an experiment."""
    reference = clone.git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").strip()
    target = clone.path.parent / "extracted"
    clone.run("git", "archive", f"--output={target}.tar", reference, file)
    clone.run(
        "tar", "--extract", f"--file={target}.tar", f"--directory={clone.path.parent}", "--one-top-level=extracted"
    )
    return (target / file).read_bytes()


def test_first_run_runs_every_stage(pipeline: Built) -> None:
    assert ran(pipeline.output) == set(STAGES)
    assert set(YAML(typ="safe").load(pipeline.clone.path / "dvc.lock")["stages"]) == set(STAGES)


def test_every_declared_output_is_made_and_git_keeps_the_small_ones_only(pipeline: Built) -> None:
    lock = YAML(typ="safe").load(pipeline.clone.path / "dvc.lock")["stages"]
    outputs = {out["path"] for stage in lock.values() for out in stage["outs"]}
    made = {*pipeline.clone.bytes_under("data"), *pipeline.clone.bytes_under("models")}
    kept = {*pipeline.clone.bytes_under("metrics")}
    assert made | kept == outputs
    tracked = set(pipeline.clone.git("ls-files", "data", "models", "metrics").split())
    assert tracked == kept


def test_pictures_open(pipeline: Built) -> None:
    for name in PICTURES:
        with Image.open(pipeline.clone.path / name) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.convert("L").getextrema() == (0, 255), name
    with Image.open(pipeline.clone.path / "metrics/evaluate/reverse.gif") as animation:
        assert animation.n_frames == 10  # 20 steps, of which every second is kept


def test_scores_have_their_keys(pipeline: Built) -> None:
    scores = read_json(pipeline.clone.path / "metrics/evaluate/scores.json")
    assert scores.keys() == {"count", "a", "b", "samples", "test"}
    assert scores["count"] == 64
    for name in ("a", "b"):
        file = pipeline.clone.path / f"models/classifier-{name}.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(scores[name]["classifier_sha256"])
        for row in ("samples", "test", "floor"):
            assert scores[name][row].keys() == {"frechet", "frechet_over_floor", "kid", "kid_deviation"}
        assert scores[name]["samples"]["frechet"] > scores[name]["test"]["frechet"] > 0
    copying = {"copying_z_pixels", "copying_z_features", "near_copies_pixels", "near_copies_features"}
    assert scores["samples"].keys() == scores["test"].keys() | copying
    assert {"confident_share", "precision", "recall", "density", "coverage", "class_p_value"} <= scores["test"].keys()
    assert scores["samples"]["copying_z_pixels"] > 3, "of the noise that the tiny model draws, nothing is a copy"


def test_costly_scores_have_their_keys(pipeline: Built) -> None:
    bits = read_json(pipeline.clone.path / "metrics/likelihood/bits.json")
    assert (bits["images"], bits["terms"]) == (10, 3)
    for split in ("test", "train"):
        parts = [bits[split][f"{part}_bits"] for part in ("prior", "steps", "decoder")]
        assert bits[split]["bits_per_dim"] == pytest.approx(sum(parts), abs=2e-5)
        assert min(parts) > 0
    accuracy = read_json(pipeline.clone.path / "metrics/classification_accuracy_score/accuracy.json")
    assert accuracy["count"] == 64
    # Shares of the 1,028 test images of the one class that the model was trained on, to six digits.
    hits = [1028 * accuracy[source]["accuracy"] for source in ("samples", "real")]
    assert hits == pytest.approx([round(hit) for hit in hits], abs=1e-3)


def test_curves_have_the_columns_that_the_plots_name(pipeline: Built) -> None:
    curves = list(declared_curves(pipeline.clone))
    assert len(curves) >= 5
    for _, x, y in curves:
        for file, columns in y.items():
            rows = table(pipeline.clone.path / file)
            assert {x, *columns} <= rows[0].keys(), file
            assert all(math.isfinite(float(row[column])) for row in rows for column in (x, *columns)), file


def test_without_validation_images_no_cell_is_empty(clone: Clone) -> None:
    clone.edit_params({"train.validation": 0})
    clone.run("python", "-m", "stages.train")
    rows = {path.name: table(path) for path in (clone.path / "metrics/train").glob("*.csv")}
    cells = [cell for filled in rows.values() for row in filled for cell in row.values()]
    assert "" not in cells, "DVC's plots show an empty cell as zero"
    assert {name for name, filled in rows.items() if filled} == {"loss.csv", "loss_by_timestep.csv"}
    shown = {curve.title for curve in declared_curves(clone) if any(table(clone.path / file) for file in curve.y)}
    assert titles(plots_page(clone, "show")) == shown, "an empty file leaves its plot out and harms no other"


def test_models_and_arrays_load(pipeline: Built) -> None:
    model, schedule, card = load_model(pipeline.clone.path / "models/ddpm.safetensors")
    assert card.classes == (7,)
    assert model.params.channels == (8, 16)
    assert schedule.timesteps == 1000
    assert load_classifier(pipeline.clone.path / "models/classifier-b.safetensors").num_features == 4
    lengths = [len(load_arrays(pipeline.clone.path / name)[0]["images"]) for name in ARRAYS]
    assert lengths == [10_000, 60_000, 8, 64]


def test_second_run_runs_nothing(clone: Clone) -> None:
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == (set(), set()), output
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
    assert clone.git("status", "--porcelain") == ""


def test_metrics_are_shown(clone: Clone) -> None:
    shown = json.loads(clone.dvc("metrics", "show", "--json"))[""]["data"]
    scores = read_json(clone.path / "metrics/evaluate/scores.json")
    assert shown["metrics/evaluate/scores.json"]["data"] == scores
    assert shown["metrics/train/summary.json"]["data"].keys() >= {"train_loss", "validation_loss", "parameters"}


def plots_page(clone: Clone, *command: str) -> str:
    page = re.search(r"^file://(.+)$", clone.dvc("plots", *command), re.MULTILINE)
    assert page
    return Path(page[1]).read_text()


def titles(page: str) -> set[str]:
    """The titles of the curves on a plots page."""
    return {json.loads(text) for text in re.findall(r'"title": {"text": ("(?:[^"\\]|\\.)*")', page)}


def declared_titles(clone: Clone) -> set[str]:
    return {curve.title for curve in declared_curves(clone)}


def test_plots_page_has_every_curve_and_picture(clone: Clone) -> None:
    page = plots_page(clone, "show")
    assert titles(page) == declared_titles(clone)
    for name in PICTURES:
        link = f"static/workspace_{name.replace('/', '_')}"
        assert link in page
        assert (clone.path / "dvc_plots" / link).read_bytes() == (clone.path / name).read_bytes()


def test_curves_from_several_files_are_drawn_whole(clone: Clone) -> None:
    plots = json.loads(clone.dvc("plots", "show", "--json"))["data"].values()
    contents = {plot["content"]["title"]["text"]: plot["content"] for (plot,) in plots if plot["type"] == "vega"}
    shared = [curve for curve in declared_curves(clone) if len(curve.y) > 1]
    assert len(shared) == 2
    for curve in shared:
        points = contents[curve.title]["data"]["values"]
        drawn = [(point["filename::field"], point[curve.x], point["dvc_inferred_y_value"]) for point in points]
        assert drawn == [
            (f"{Path(file).name}::{column}", row[curve.x], row[column])
            for file, columns in curve.y.items()
            for column in columns
            for row in table(clone.path / file)
        ]


def test_experiment_runs_train_and_what_is_behind_it(experiment: Built) -> None:
    assert (ran(experiment.output), restored(experiment.output)) == (AFTER_TRAIN_PARAMS, set()), experiment.output


def test_experiment_is_compared_with_its_parent(tried: Clone) -> None:
    rows = csv.DictReader(tried.dvc("exp", "show", "--csv").splitlines())
    rates = {row["Experiment"] or row["rev"]: float(row["train.lr"]) for row in rows}
    assert rates == {"workspace": 0.0005, "main": 0.001, "slower": 0.0005}
    params = json.loads(tried.dvc("params", "diff", "--json"))
    assert params == {"params.yaml": {"train.lr": {"old": 0.001, "new": 0.0005, "diff": -0.0005}}}
    before = json.loads(tried.git("show", "HEAD:metrics/evaluate/scores.json"))["b"]["samples"]["frechet"]
    after = read_json(tried.path / "metrics/evaluate/scores.json")["b"]["samples"]["frechet"]
    metrics = json.loads(tried.dvc("metrics", "diff", "--json"))["metrics/evaluate/scores.json"]
    assert metrics["b.samples.frechet"] == {"old": before, "new": after, "diff": pytest.approx(after - before)}


def test_experiment_is_drawn_beside_its_parent(tried: Clone) -> None:
    page = plots_page(tried, "diff", "HEAD", "workspace")
    assert titles(page) == declared_titles(tried)
    assert '"domain": ["workspace", "HEAD"]' in page
    for revision in ("HEAD", "workspace"):
        assert f"static/{revision}_metrics_evaluate_samples.png" in page


# One of the slowest: trains once.
def test_temporary_experiment_with_a_learning_rate_in_exponent_form(clone: Clone) -> None:
    output = clone.dvc("exp", "run", "--temp", "--name", "slowest", "-S", "train.lr=1e-5")
    assert (ran(output), restored(output)) == (AFTER_TRAIN_PARAMS, set()), output
    assert clone.git("status", "--porcelain") == "", "the workspace stays as it was"
    assert b"  lr: 1e-05 " in experiment_file(clone, "slowest", "params.yaml")
    losses = experiment_file(clone, "slowest", "metrics/train/loss.csv")
    assert losses != (clone.path / "metrics/train/loss.csv").read_bytes()


def test_queue_runs_the_code_that_was_queued(tried: Clone) -> None:
    tried.git("checkout", ".")
    figures = tried.path / "src/ddpm/scoring/figures.py"
    source = figures.read_text()
    coarse = re.sub(r"^DPI = 150$", "DPI = 50", source, flags=re.MULTILINE)
    assert coarse != source
    figures.write_text(coarse)
    tried.dvc("exp", "run", "--queue", "--name", "sweep", "-S", "train.lr=0.001,0.0005")
    figures.write_text(source)
    tried.dvc("queue", "start", "--jobs", "1")
    status = tried.finished_queue()
    logs = {name: tried.dvc("queue", "logs", name) for name in ("sweep-1", "sweep-2")}
    assert status.count("Success") == 2, "\n".join([status, *logs.values()])
    assert ran(logs["sweep-1"]) == {"forward_diffusion", "evaluate"}, logs["sweep-1"]
    assert ran(logs["sweep-2"]) == {"evaluate"}, logs["sweep-2"]  # all else is in the run cache
    assert sorted(experiment_names(tried)) == ["slower", "sweep-1", "sweep-2"]
    for name, lr in (("sweep-1", 0.001), ("sweep-2", 0.0005)):
        assert YAML(typ="safe").load(experiment_file(tried, name, "params.yaml"))["train"]["lr"] == lr
        picture = tried.path.parent / "queued.png"
        picture.write_bytes(experiment_file(tried, name, PICTURES[0]))
        assert 3 * width(picture) == pytest.approx(width(tried.path / PICTURES[0]), abs=3)
    assert tried.git("status", "--porcelain") == "", "the workspace stays as it was"


def width(picture: Path) -> int:
    with Image.open(picture) as opened:
        return opened.width


def test_a_fresh_clone_pulls_what_was_pushed_and_generates_from_it(clone: Clone, tmp_path: Path) -> None:
    clone.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    clone.commit()
    clone.dvc("push")
    fresh = git_clone(clone, tmp_path / "other")
    fresh.dvc("pull")
    output = fresh.dvc("repro")
    assert (ran(output), restored(output)) == (set(), set()), output
    assert fresh.dvc("status").strip() == "Data and pipelines are up to date."
    assert fresh.git("status", "--porcelain") == ""

    options = ["--model", "models/ddpm.safetensors", "--out", "drawn", "--count", "3", "--steps", "5"]
    fresh.run("python", "-m", "ddpm.generate", *options, PYTHONPATH="src")
    drawn = sorted((fresh.path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["000000.png", "000001.png", "000002.png", "labels.csv"]
    assert [row["label"] for row in table(drawn[-1])] == ["7", "7", "7"]
    with Image.open(drawn[0]) as picture:
        assert (picture.mode, picture.size) == ("L", (28, 28))


def test_bad_params_fail_by_name_and_what_was_there_comes_back(clone: Clone) -> None:
    clone.edit_params({"train.epochs": 0, "train.lr": "fast"})
    output = clone.dvc("repro", code=255)
    assert ran(output) == {"train"}, output
    assert "train.epochs: input should be greater than 0, got 0" in output, output
    assert 'train.lr: input should be a valid number, got "fast"' in output, output
    assert "Traceback" not in output, output
    clone.git("checkout", ".")
    clone.dvc("checkout")
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
    assert load_model(clone.path / "models/ddpm.safetensors").card.classes == (7,)


# The slowest: runs the whole pipeline again, in another folder and with a cache of its own.
def test_an_independent_run_gives_the_same_bytes(pipeline: Built, tmp_path: Path) -> None:
    again = git_clone(pipeline.clone, tmp_path, "main~1")  # before its results were committed
    assert ran(again.dvc("repro")) == set(STAGES)
    assert (again.path / "dvc.lock").read_text() == (pipeline.clone.path / "dvc.lock").read_text()
    assert again.bytes_under("metrics") == pipeline.clone.bytes_under("metrics")
    shutil.rmtree(tmp_path)
