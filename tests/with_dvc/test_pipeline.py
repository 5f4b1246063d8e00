"""The whole pipeline with real dvc: its outputs, the way to a fresh clone, and the same bytes again."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from tests.with_dvc.dvc_clone import PICTURES, STAGES, Built, Clone, git_clone, ran, read_json, restored, table

pytestmark = pytest.mark.pipeline
UP_TO_DATE = "Data and pipelines are up to date."


def test_the_first_run_runs_every_stage_and_makes_every_output(pipeline: Built) -> None:
    lock = pipeline.clone.lock()
    assert ran(pipeline.output) == set(lock) - {"check"} == set(STAGES)
    outputs = {out["path"] for stage in lock.values() for out in stage["outs"]}
    made = {*pipeline.clone.bytes_under("data", "models", "metrics")} - {"data/README.md"}
    assert {path if not path.startswith("data/mnist/") else "data/mnist" for path in made} == outputs
    tracked = set(pipeline.clone.git("ls-files", "data", "models", "metrics").split())
    assert tracked == {*pipeline.clone.bytes_under("metrics"), "data/README.md"}


def test_a_stage_reads_what_it_declares(pipeline: Built) -> None:
    reads = defaultdict(set)
    for line in (pipeline.clone.path.parent / "reads.txt").read_text().splitlines():
        stage, path = line.split("\t")
        reads[stage].add("data/mnist" if path.startswith("data/mnist") else path)
    for stage, locked in pipeline.clone.lock().items():
        outputs = {out["path"] for out in locked["outs"]}  # a stage hashes these again, for its checkpoint
        inputs = {dep["path"] for dep in locked.get("deps", []) if dep["path"].startswith(("data/", "models/"))}
        inputs -= {"data/checked.txt"}  # it only makes `check` come first
        assert reads[stage] - outputs == inputs, stage


def test_pictures_open(pipeline: Built) -> None:
    for name in PICTURES:
        with Image.open(pipeline.clone.path / name) as picture:
            assert picture.format == "PNG"
            assert picture.convert("L").getextrema() == (0, 255), name
    with Image.open(pipeline.clone.path / "metrics/evaluate/reverse.gif") as animation:
        assert animation.n_frames == 10  # 20 steps, of which every second is kept


def test_scores_are_those_of_noise(pipeline: Built) -> None:
    metrics = pipeline.clone.path / "metrics"
    scores = read_json(metrics / "evaluate/scores.json")
    assert scores["count"] == 64
    for name in ("a", "b"):
        assert scores[name]["samples"]["frechet"] > scores[name]["test"]["frechet"] > 0
    nearest = [scores[row]["nearest_train_pixels"] for row in ("samples", "test")]
    assert nearest[0] > nearest[1], "nothing that the tiny model samples is a copy"
    bits = read_json(metrics / "likelihood/bits.json")
    for split in ("test", "train"):
        parts = [bits[split][f"{part}_bits"] for part in ("prior", "steps", "decoder")]
        assert bits[split]["bits_per_dim"] == pytest.approx(sum(parts), abs=2e-5)
        assert min(parts) > 0
    accuracy = read_json(metrics / "classification_accuracy_score/accuracy.json")
    assert accuracy == {"count": 0, "samples": None, "real": None}  # of the one class that the model was trained on


def test_the_second_run_runs_nothing(clone: Clone) -> None:
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == (set(), set()), output
    assert clone.dvc("status").strip() == UP_TO_DATE
    assert clone.git("status", "--porcelain") == ""
    shown = json.loads(clone.dvc("metrics", "show", "--json"))[""]["data"]
    scores = read_json(clone.path / "metrics/evaluate/scores.json")
    rows = {key: value for key, value in scores.items() if isinstance(value, dict)}
    assert rows["samples"]["two_sample_accuracy"] is None  # of so few samples; DVC shows no null
    for name in ("samples", "test", "baseline"):
        rows[name] = {key: value for key, value in rows[name].items() if value is not None}
    assert shown["metrics/evaluate/scores.json"]["data"] == scores | rows


def test_a_fresh_clone_pulls_what_was_pushed_and_generates_from_it(clone: Clone, tmp_path: Path) -> None:
    clone.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    clone.commit()
    clone.dvc("push")
    fresh = git_clone(clone, tmp_path / "other")
    fresh.dvc("pull")
    output = fresh.dvc("repro")
    assert (ran(output), restored(output)) == (set(), set()), output
    assert fresh.git("status", "--porcelain") == ""

    options = ["--model", "models/ddpm.safetensors", "--out", "sampled", "--count", "3", "--steps", "5"]
    fresh.run("python", "-m", "ddpm", "generate", *options, PYTHONPATH="src")
    sampled = sorted((fresh.path / "sampled").iterdir())
    assert [path.name for path in sampled] == ["000000.png", "000001.png", "000002.png", "labels.csv"]
    assert [row["label"] for row in table(sampled[-1])] == ["7", "7", "7"]


def test_bad_params_fail_by_name_and_what_was_there_comes_back(clone: Clone) -> None:
    clone.edit_params({"train.epochs": 0, "train.lr": "fast"})
    output = clone.dvc("repro", code=255)
    assert ran(output) == set(), output
    assert "train.epochs: " in output, output
    assert "train.lr: " in output, output
    assert "Traceback" not in output, output
    clone.git("checkout", ".")
    clone.dvc("checkout")
    assert clone.dvc("status").strip() == UP_TO_DATE


@pytest.mark.long
def test_an_independent_run_gives_the_same_bytes(pipeline: Built, tmp_path: Path) -> None:
    again = git_clone(pipeline.clone, tmp_path, "main~1")  # before its results were committed; with a cache of its own
    assert ran(again.dvc("repro")) == set(STAGES)
    assert (again.path / "dvc.lock").read_text() == (pipeline.clone.path / "dvc.lock").read_text()
    assert again.bytes_under("metrics") == pipeline.clone.bytes_under("metrics")
    shutil.rmtree(tmp_path)
