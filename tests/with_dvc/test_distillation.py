"""Distillation with real dvc: by default there is none, and an experiment makes a model and draws with it."""

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.with_dvc.dvc_clone import Clone, ran, read_json, restored

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
QUICK = ["distill.images=2000", "distill.batch_size=100", "distill.log_every=5"]
OWN_WAY = ["sampler=ddpm", "steps=null", "guidance=1"]


def options(*settings: str) -> list[str]:
    return [f"--set-param={setting}" for setting in settings]


def test_a_distilled_model_is_made_drawn_from_and_scored(clone: Clone) -> None:
    source = "sample.model=models/distilled-2.safetensors"
    own = [f"sample.{name}.{each}" for name in ("gallery", "population") for each in OWN_WAY]
    settings = options("distill.steps=[2]", source, "sample.gallery.keep_every=1", *QUICK, *own)
    output = clone.dvc("exp", "run", "--name", "few", *settings)
    behind = {"sample@gallery", "sample@population", "filter", "evaluate", "classification_accuracy_score"}
    assert (ran(output), restored(output)) == ({"distill@2", *behind}, set()), output
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
    summary = read_json(clone.path / "metrics/distill/2/summary.json")
    assert summary["steps"] == 20
    assert len(summary["timesteps"]) == 2
    rows = (clone.path / "metrics/distill/2/loss.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "5", "10", "15", "20"]
    # generate takes the file as any other, and refuses another way by name.
    call = ["python", "-m", "ddpm", "generate", "--model", "models/distilled-2.safetensors", "--count", "3"]
    clone.run(*call, "--format", "npz", "--out", "drawn", PYTHONPATH="src")
    with np.load(clone.path / "drawn/images.npz") as arrays:
        assert arrays["images"].shape == (3, 28, 28)
    refused = clone.run(*call, "--out", "other", "--steps", "3", code=1, PYTHONPATH="src")
    assert "steps: 3, but this model is distilled to 2; set 2, or null" in refused
    assert not (clone.path / "other").exists()


def test_by_default_there_is_no_such_stage(clone: Clone) -> None:
    assert "distill" not in clone.dvc("status") + clone.dvc("repro", "--dry")


def test_what_is_no_number_of_evaluations_is_refused(clone: Clone) -> None:
    for setting in ("distill.steps=[0]", "distill.steps=[65]"):
        printed = clone.dvc("exp", "run", "--temp", *options(setting, *QUICK), code=255)
        assert "distill.steps" in printed


def test_a_state_is_taken_up_by_the_same_teacher_and_number_alone(clone: Clone) -> None:
    """That of an experiment stays, for dvc.lock of the workspace does not name its model."""

    def run(name: str, *settings: str) -> str:
        return clone.dvc(
            "exp", "run", "--temp", "--name", name, *options(*settings, *QUICK), f"distill@{settings[0][-2]}"
        )

    assert "resuming" not in run("one", "distill.steps=[2]")
    assert "resuming" not in run("other-teacher", "distill.steps=[2]", "train.seed=7")
    assert "resuming" not in run("other-number", "distill.steps=[3]")
    hashes = set()
    for name in ("one", "other-teacher", "other-number"):
        reference = clone.git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").strip()
        lock = YAML(typ="safe").load(clone.git("show", f"{reference}:dvc.lock"))
        (stage,) = (found for stage, found in lock["stages"].items() if stage.startswith("distill"))
        hashes |= {out["md5"] for out in stage["outs"] if out["path"].startswith("models/")}
    assert len(hashes) == 3
