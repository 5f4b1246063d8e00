"""Experiments with real dvc: what they run, what they are compared with, in a temporary copy and in the queue."""

import csv
import json
import re
from pathlib import Path

import pytest
from dvc.utils.flatten import flatten
from PIL import Image
from ruamel.yaml import YAML

from tests.with_dvc.dvc_clone import PICTURES, STAGES, Built, Clone, ran, read_json, restored

pytestmark = pytest.mark.pipeline
AFTER_TRAIN_PARAMS = {*STAGES[STAGES.index("train") :]}


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


def test_experiment_runs_train_and_what_is_behind_it(experiment: Built) -> None:
    assert (ran(experiment.output), restored(experiment.output)) == (AFTER_TRAIN_PARAMS, set()), experiment.output


def test_experiment_is_compared_with_its_parent(tried: Clone) -> None:
    rows = csv.DictReader(tried.dvc("exp", "show", "--csv").splitlines())
    rates = {row["Experiment"] or row["rev"]: float(row["train.lr"]) for row in rows}
    assert rates == {"workspace": 0.0005, "main": 0.001, "slower": 0.0005}
    params = json.loads(tried.dvc("params", "diff", "--json"))
    assert params == {"params.yaml": {"train.lr": {"old": 0.001, "new": 0.0005, "diff": -0.0005}}}
    before = flatten(json.loads(tried.git("show", "HEAD:metrics/evaluate/scores.json")))
    after = flatten(read_json(tried.path / "metrics/evaluate/scores.json"))
    differing = {
        name: {"old": before[name], "new": value, "diff": pytest.approx(value - before[name])}
        for name, value in after.items()
        if value != before[name]
    }
    metrics = json.loads(tried.dvc("metrics", "diff", "--json"))["metrics/evaluate/scores.json"]
    assert metrics == differing
    assert any(name.startswith("b.samples.") for name in differing)


# One of the slowest: trains once.
def test_temporary_experiment_with_a_learning_rate_in_exponent_form(clone: Clone) -> None:
    output = clone.dvc("exp", "run", "--temp", "--name", "slowest", "-S", "train.lr=1e-5", "train")
    assert (ran(output), restored(output)) == ({"train"}, set()), output
    assert clone.git("status", "--porcelain") == "", "the workspace stays as it was"
    assert b"  lr: 1e-05 " in experiment_file(clone, "slowest", "params.yaml")
    losses = experiment_file(clone, "slowest", "metrics/train/loss.csv")
    assert losses != (clone.path / "metrics/train/loss.csv").read_bytes()


@pytest.mark.long
def test_queue_runs_the_code_that_was_queued(tried: Clone) -> None:
    tried.git("checkout", ".")
    figures = tried.path / "src/ddpm/pictures/figures.py"
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
