"""Experiments with real dvc: what they run, what they are compared with, in a temporary copy and in the queue."""

import re
import time

import pytest
from ruamel.yaml import YAML

from tests.with_dvc.dvc_clone import SECONDS, STAGES, Built, Clone, ran, restored

pytestmark = pytest.mark.pipeline


def experiment_file(clone: Clone, name: str, file: str) -> str:
    """A text that git keeps, from the commit of an experiment."""
    reference = clone.git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").strip()
    return clone.git("show", f"{reference}:{file}")


def test_an_experiment_runs_train_and_what_is_behind_it(experiment: Built) -> None:
    behind = {*STAGES[STAGES.index("train") :]}
    assert (ran(experiment.output), restored(experiment.output)) == (behind, set()), experiment.output


def test_a_temporary_experiment_with_a_learning_rate_in_exponent_form(clone: Clone) -> None:
    output = clone.dvc("exp", "run", "--temp", "--name", "slowest", "-S", "train.lr=1e-5", "train")
    assert (ran(output), restored(output)) == ({"train"}, set()), output
    assert clone.git("status", "--porcelain") == "", "the workspace stays as it was"
    assert "  lr: 1e-05 " in experiment_file(clone, "slowest", "params.yaml")
    losses = experiment_file(clone, "slowest", "metrics/train/loss.csv")
    assert losses != (clone.path / "metrics/train/loss.csv").read_text()


@pytest.mark.long
def test_the_queue_runs_the_code_that_was_queued(tried: Clone) -> None:
    tried.git("checkout", ".")
    script = tried.path / "stages/evaluate.py"
    source = script.read_text()
    tried.append("stages/evaluate.py", "# queued")
    tried.dvc("exp", "run", "--queue", "--name", "sweep", "-S", "train.lr=0.001,0.0005")
    script.write_text(source)
    tried.dvc("queue", "start", "--jobs", "1")
    deadline = time.monotonic() + SECONDS
    while re.search("Queued|Running", status := tried.dvc("queue", "status")) and time.monotonic() < deadline:
        time.sleep(1)
    logs = {name: tried.dvc("queue", "logs", name) for name in ("sweep-1", "sweep-2")}
    assert status.count("Success") == 2, "\n".join([status, *logs.values()])
    for (name, log), lr in zip(logs.items(), (0.001, 0.0005), strict=True):
        assert ran(log) == {"evaluate"}, log  # all else is in the run cache
        assert YAML(typ="safe").load(experiment_file(tried, name, "params.yaml"))["train"]["lr"] == lr
        assert experiment_file(tried, name, "stages/evaluate.py").endswith("# queued\n")
    assert tried.git("status", "--porcelain") == "", "the workspace stays as it was"
