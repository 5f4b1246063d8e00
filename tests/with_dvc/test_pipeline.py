"""The whole pipeline with real dvc: its outputs, the way to a fresh clone, and the same bytes again."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from ddpm.classifier.model import load_classifier
from ddpm.ingest.mnist import FILES
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.arrays import load_arrays
from tests.with_dvc.dvc_clone import PICTURES, STAGES, Built, Clone, git_clone, ran, read_json, restored, table

pytestmark = pytest.mark.pipeline
ARRAYS = [
    "data/processed/test.safetensors",
    "data/processed/train.safetensors",
    "data/samples/filtered.safetensors",
    "data/samples/gallery.safetensors",
    "data/samples/population.safetensors",
]


def test_first_run_runs_every_stage(pipeline: Built) -> None:
    assert ran(pipeline.output) == set(STAGES)
    assert set(YAML(typ="safe").load(pipeline.clone.path / "dvc.lock")["stages"]) == set(STAGES)


def test_every_declared_output_is_made_and_git_keeps_the_small_ones_only(pipeline: Built) -> None:
    lock = YAML(typ="safe").load(pipeline.clone.path / "dvc.lock")["stages"]
    outputs = {out["path"] for stage in lock.values() for out in stage["outs"]}
    outputs |= {f"data/mnist/{name}" for name in FILES}
    outputs.remove("data/mnist")
    made = {*pipeline.clone.bytes_under("data"), *pipeline.clone.bytes_under("models")} - {"data/README.md"}
    kept = {*pipeline.clone.bytes_under("metrics")}
    assert made | kept == outputs
    tracked = set(pipeline.clone.git("ls-files", "data", "models", "metrics").split())
    assert tracked == kept | {"data/README.md"}


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
    assert scores.keys() == {"count", "a", "b", "pixels", "samples", "test", "floor"}
    assert scores["count"] == 64
    for name in ("a", "b"):
        file = pipeline.clone.path / f"models/classifier-{name}.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(scores[name]["classifier_sha256"])
        for row in ("samples", "test", "floor"):
            frechet = {"frechet", "frechet_deviation", "frechet_over_floor"}
            assert scores[name][row].keys() == frechet | {"kid", "kid_error"}
        assert scores[name]["samples"]["frechet"] > scores[name]["test"]["frechet"] > 0
    copying = {"copying_z", "near_copies", "near_copies_ratio", "near_copies_judged"}
    assert {f"{name}_{space}" for name in copying for space in ("pixels", "features")} <= scores["samples"].keys()
    variety = {"precision", "recall", "density", "coverage"}
    assert variety | {f"{name}_deviation" for name in variety} == scores["floor"].keys()
    assert scores["floor"].keys() | {"confident_share", "class_p_value", "twins_pixels"} <= scores["test"].keys()
    assert scores["samples"]["copying_z_pixels"] > 3, "of the noise that the tiny model draws, nothing is a copy"


def test_costly_scores_have_their_keys(pipeline: Built) -> None:
    bits = read_json(pipeline.clone.path / "metrics/likelihood/bits.json")
    assert (bits["images"], bits["terms"]) == (10, 3)
    for split in ("test", "train"):
        parts = [bits[split][f"{part}_bits"] for part in ("prior", "steps", "decoder")]
        assert bits[split]["bits_per_dim"] == pytest.approx(sum(parts), abs=2e-5)
        assert min(parts) > 0
    accuracy = read_json(pipeline.clone.path / "metrics/classification_accuracy_score/accuracy.json")
    assert accuracy == {"count": 0, "samples": None, "real": None}  # of the one class that the model was trained on


def test_models_and_arrays_load(pipeline: Built) -> None:
    loaded = load_model(pipeline.clone.path / "models/ddpm.safetensors")
    assert loaded.card.classes == (7,)
    assert loaded.card.guides == ("early",)
    assert loaded.model.params.channels == (8, 16)
    assert loaded.schedule.timesteps == 1000
    assert load_classifier(pipeline.clone.path / "models/classifier-b.safetensors").num_features == 4
    lengths = [len(load_arrays(pipeline.clone.path / name)[0]["images"]) for name in ARRAYS]
    assert lengths == [10_000, 60_000, 64, 8, 64]


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
    fresh.run("python", "-m", "ddpm", "generate", *options, PYTHONPATH="src")
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


@pytest.mark.long
# The slowest: runs the whole pipeline again, in another folder and with a cache of its own.
def test_an_independent_run_gives_the_same_bytes(pipeline: Built, tmp_path: Path) -> None:
    again = git_clone(pipeline.clone, tmp_path, "main~1")  # before its results were committed
    assert ran(again.dvc("repro")) == set(STAGES)
    assert (again.path / "dvc.lock").read_text() == (pipeline.clone.path / "dvc.lock").read_text()
    assert again.bytes_under("metrics") == pipeline.clone.bytes_under("metrics")
    shutil.rmtree(tmp_path)
