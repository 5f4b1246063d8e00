"""The study on small images: what is finished is not computed again, after kill -9, and what has changed is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from ddpm.compute.device import Runtime
from ddpm.images.card import DataCard
from ddpm.images.splits import Processed, Split, save_split
from studies.rare_class import subset as module
from studies.rare_class.params import FILE, Params, Pipeline, load, spanning_errors
from studies.rare_class.subset import Images, Setting, Subset
from tests.small import unet_params
from tests.training.trainings import RECIPE

ROOT = Path(__file__).parents[2]
CARD = DataCard(name="small", shape=(1, 8, 8), classes=("a", "b", "c"))
RESULTS = Path("studies/rare_class/results/confirming")
METHOD = "oversample+sampled+filtered"
STUDY = {
    "subsets": ["8-0", "8-1"],
    "classes": ["b"],
    "methods": ["nothing", METHOD],
    "seeds": [0],
    "oracle": [0],
    "frequent": 3,
    "picture": "8-1",
}


def processed(count: int, seed: int) -> Processed:
    """Noise, as many images of each class."""
    levels = torch.randint(0, 256, (count, *CARD.shape), generator=torch.Generator().manual_seed(seed))
    return Processed(CARD, Split(levels.to(torch.uint8), torch.arange(count) % 3), torch.arange(count), (100,) * 3)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The code, small params, and processed images."""
    for name in ("src", "stages", "scripts", "studies"):
        copytree(ROOT / name, tmp_path / name, ignore=ignore_patterns("__pycache__", "results"))
    for split, count, seed in (("train", 180, 0), ("test", 330, 1)):
        card, (images, labels), groups, counts = processed(count, seed)
        save_split(tmp_path / f"data/processed/{split}.safetensors", card, labels, groups, counts, [images])
    pipeline = {
        "data": {"set": "data/mnist"},
        "schedule": {"timesteps": 20, "beta_start": 0.01, "beta_end": 0.5},
        "model": unet_params(class_conditional=True, prediction="v").model_dump(mode="json"),
        "train": {**RECIPE, "guide_share": 0.06, "validation": 0.1},
    }
    YAML().dump(pipeline, tmp_path / "params.yaml")
    study = {
        "validation_pool": 5,
        "train.images": 2000,
        "sample.rare": 6,
        "sample.steps": 2,
        "learn.steps": 5,
        "learn.channels": 2,
    }
    edit(tmp_path, study | {f"confirming.{key}": value for key, value in STUDY.items()})
    return tmp_path


def edit(folder: Path, values: dict[str, Any]) -> None:
    """Set params of the study."""
    params = YAML().load(folder / FILE)
    for name, value in values.items():
        *sections, key = name.split(".")
        section = params
        for each in sections:
            section = section[each]
        section[key] = value
    YAML().dump(params, folder / FILE)


def study(folder: Path, until: Callable[[], bool] | None = None, **variables: str) -> str:
    """Run the study, perhaps until something is so, when it is killed; what it says."""
    command = [sys.executable, "-m", "studies.rare_class.run", "confirming"]
    environment = {**os.environ, "DDPM_THREADS": "1", "DDPM_DEVICE": "cpu"} | variables
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        while until and not until():
            assert process.poll() is None, (folder / "said").read_text()
            time.sleep(0.005)
        if until:
            process.send_signal(signal.SIGKILL)
        code = process.wait(600)
    assert code == (-signal.SIGKILL if until else 0), (folder / "said").read_text()
    return (folder / "said").read_text()


def made(folder: Path, kind: str = "") -> dict[str, int]:
    """When each file of what is kept on the way was written, by its name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "build/rare_class").glob(f"[!.]*{kind}")}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RESULTS / "rows.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_what_is_finished_is_not_computed_again_and_what_has_changed_is(workspace: Path) -> None:
    states, before = workspace / ".resume", workspace / "before"
    study(workspace, until=lambda: any(states.glob("rare_class-*.pt")), DDPM_SAVE_SECONDS="0")
    assert not made(workspace)
    said = study(
        workspace, until=lambda: len(made(workspace, ".json")) >= 4
    )  # model, sampled images, a row of each kind
    assert "continues where it was interrupted" in said
    finished = made(workspace)
    said = study(workspace)
    assert "8-0: train" not in said
    assert finished.items() <= made(workspace).items()
    found = rows(workspace)
    assert [row["of"] for row in found] == [*["generator", "classifier", "classifier", "copies"] * 2, "oracle"]
    assert [row["subset"] for row in found[:-1]] == ["8-0"] * 4 + ["8-1"] * 4
    for row in found:
        if row["of"] in ("classifier", "oracle"):
            assert torch.tensor(row["confusion"]).sum(1).tolist() == [110] * 3
    assert {path.name for path in (workspace / RESULTS).iterdir()} == {
        "rows.jsonl",
        "run.json",
        "samples.png",
        "f1.png",
    }

    # A finished study: nothing is done, whether by what was kept on the way or, in a fresh clone, by its rows alone.
    finished, written = made(workspace), (workspace / RESULTS / "rows.jsonl").stat().st_mtime_ns
    study(workspace)
    (workspace / "build").rename(before)
    study(workspace)
    assert not made(workspace)
    assert (workspace / RESULTS / "rows.jsonl").stat().st_mtime_ns == written

    # Without them it comes to the same, though it was killed twice.
    (workspace / RESULTS / "rows.jsonl").unlink()
    study(workspace)
    assert rows(workspace) == found

    # The code of one kind of rows changes, then a param of the classifiers: no model is trained again.
    with (workspace / "studies/rare_class/copies.py").open("a") as file:
        file.write("# more\n")
    study(workspace)
    changed = [one["of"] for one, other in zip(rows(workspace), found, strict=True) if one["key"] != other["key"]]
    assert changed == ["copies", "copies"]
    edit(workspace, {"learn.lr": 0.02})
    said = study(workspace)
    assert all(one["key"] != other["key"] for one, other in zip(rows(workspace), found, strict=True))
    assert "train" not in said
    assert "8-1: sample" in said


def test_all_that_learns_or_samples_is_given_what_was_kept_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("studies.rare_class.keeping.SCRATCH", tmp_path)
    params, pipeline = load()
    small = params.confirming.model_copy(update={**STUDY, "classes": ("b",)})
    images = Images(processed(180, 0), processed(330, 1), "train", "test")
    given: list[object] = []

    def told(*arguments: object) -> dict[str, Any]:
        given.extend(each for each in arguments if isinstance(each, Processed | Split))
        return {}

    for name in ("train", "sample", "compare"):
        monkeypatch.setattr(module, name, told)
    monkeypatch.setattr(module, "load_samples", lambda path: None)
    runtime = Runtime(torch.device("cpu"), torch.float32)
    setting = Setting(params.model_copy(update={"validation_pool": 5}), pipeline, small, images, runtime)
    for test in ("test", "validation_pool"):
        one = Subset(setting._replace(study=small.model_copy(update={"test": test})), "8-0")
        given.clear()
        one.classifier(METHOD, 0)  # of a model that is trained, and images that are sampled
        kept, validation_pool = one.parts
        assert kept.split.labels.bincount().tolist() == [55, 8, 55]
        *learned, tested = given
        assert len(learned) >= 3
        assert all(each is kept for each in learned)
        assert tested is (images.test if test == "test" else validation_pool).split


@pytest.mark.parametrize(
    ("section", "change", "named"),
    [
        ("sample", {"seed": 1}, ["sample.seed"] * 3),
        ("sample", {"steps": 1001}, ["sample.steps"]),
        ("fashion", {"picture": "50-7"}, ["fashion.picture"]),
        ("pipeline.train", {"classes": (7,)}, ["params.yaml: train.classes"]),
        ("pipeline.train", {"guide_share": 0.0}, ["sample.guidance"]),
        ("pipeline.model", {"class_conditional": False}, ["params.yaml: model.class_conditional"]),
    ],
)
def test_what_does_not_fit_is_named(section: str, change: dict[str, Any], named: list[str]) -> None:
    params, pipeline = load()
    whole: Params | Pipeline = pipeline if section.startswith("pipeline") else params
    name = section.rpartition(".")[2]
    whole = whole.model_copy(update={name: getattr(whole, name).model_copy(update=change)})
    both = (whole, pipeline) if isinstance(whole, Params) else (params, whole)
    errors = spanning_errors(*both)
    assert [error[: len(name)] for error, name in zip(errors, named, strict=True)] == named
