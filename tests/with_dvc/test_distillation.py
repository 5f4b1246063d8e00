"""Distillation with real dvc: by default there is none, and an experiment makes a model and samples with it."""

import shutil
import signal

import pandas as pd
import pytest

from tests.with_dvc.dvc_clone import Clone, ran, read_json, restored, stale, wait_for

pytestmark = pytest.mark.long
QUICK = {"distill.images_seen": 2000, "distill.batch_size": 100}
OWN_WAY = {"sampler": "ddpm", "steps": "null"}


def options(**settings: object) -> list[str]:
    return [f"--set-param={name}={value}" for name, value in settings.items()]


def test_a_distilled_model_is_made_sampled_from_and_scored_and_one_that_is_interrupted_is_the_same(
    clone: Clone,
) -> None:
    assert "distill" not in clone.dvc("repro", "--dry")
    own = {f"sample.{name}.{key}": value for name in ("preview", "scored") for key, value in OWN_WAY.items()}
    few = {"distill.steps": "[2]", "sample.model": "models/distilled-2.safetensors", "sample.preview.keep_every": 1}
    output = clone.dvc("exp", "run", "--name", "few", *options(**few, **QUICK, **own))
    behind = {"sample@preview", "sample@scored", "filter", "evaluate", "draw", "classification_accuracy_score"}
    assert (ran(output), restored(output)) == ({"distill@2", *behind}, set()), output
    assert not stale(clone.dvc("status"))
    summary = read_json(clone.path / "metrics/distill/2/summary.json")
    assert (summary["steps"], len(summary["timesteps"])) == (20, 2)
    assert pd.read_csv(clone.path / "metrics/distill/2/loss.csv")["step"].tolist() == [20]
    assert read_json(clone.path / "metrics/sample/scored.json")["evaluations"] == 2

    model = clone.path / "models/distilled-2.safetensors"
    expected = model.read_bytes()
    model.unlink()
    shutil.rmtree(clone.path / ".resume")
    process = clone.start("python", "-m", "stages.distill", "2", DDPM_SAVE_SECONDS="0")
    wait_for(lambda: list((clone.path / ".resume").glob("distill-2-*")), process)
    process.send_signal(signal.SIGTERM)
    assert "error: distill-2: interrupted" in process.communicate(timeout=60)[0]
    assert "continues" in clone.run("python", "-m", "stages.distill", "2")
    assert model.read_bytes() == expected
