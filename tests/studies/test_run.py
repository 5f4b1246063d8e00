"""The study on small images: what is finished is not computed again, and what has changed is."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from ddpm.images.card import DataCard
from ddpm.images.splits import save_split
from studies.rare_class.learning import METHODS
from tests.small import images

ROOT = Path(__file__).parents[2]
CARD = DataCard(name="small", shape=(1, 8, 8), classes=("a", "b", "c"))
COUNTS = [5, 8, 12]
SMALL = {"counts": COUNTS, "target": 12, "pool": 10}
LEARN = {"channels": 2, "steps": 4, "batch_size": 4, "lr": 0.003, "check_every": 2}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The code, small params, and processed images: noise."""
    for name in ("src", "stages", "studies"):
        copytree(ROOT / name, tmp_path / name, ignore=ignore_patterns("__pycache__", "results"))
    for split, count in (("train", 180), ("test", 30)):
        path, labels = tmp_path / f"data/processed/{split}.safetensors", torch.arange(count) % 3
        save_split(path, CARD, labels, torch.arange(count), (10,) * 3, [images(count, CARD.shape)])
    params = YAML().load(ROOT / "params.yaml")
    params["train"]["images_seen"], params["classifier"]["images_seen"] = 640, 320
    params["model"]["channels"], params["sample"]["population"]["steps"] = [4], 2
    YAML().dump(params, tmp_path / "params.yaml")
    edit(tmp_path, SMALL | {"learn": LEARN})
    return tmp_path


def edit(folder: Path, values: dict[str, Any]) -> None:
    path = folder / "studies/rare_class/params.yaml"
    YAML().dump(YAML().load(path) | values, path)


def study(folder: Path) -> str:
    command = [sys.executable, "-m", "studies.rare_class.run", "--processes", "1"]
    environment = {**os.environ, "DDPM_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.long
def test_rows_are_kept_until_the_code_changes(workspace: Path) -> None:
    results, made = workspace / "studies/rare_class/results/small", workspace / "build/rare_class"
    study(workspace)
    rows = pd.read_csv(results / "scores.csv")
    assert len(rows) == 5 * 3 * len(METHODS)
    assert rows["code"].nunique() == 1
    tallies = pd.read_csv(results / "scores_generated.csv")
    assert sorted(tallies["images"]) == sorted(COUNTS * 5)
    assert (tallies[tallies["images"] == 12]["candidates"] == 0).all()

    # An interrupted run: some rows are missing.
    files = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    rows.iloc[:-5].to_csv(results / "scores.csv", index=False)
    assert "5/5" in study(workspace)
    assert pd.read_csv(results / "scores.csv").equals(rows)

    # Other classifiers on the same images.
    edit(workspace, {"learn": LEARN | {"steps": 2}})
    study(workspace)
    again = pd.read_csv(results / "scores.csv")
    assert len(again) == len(rows)
    assert not again["code"].isin(rows["code"]).any()
    assert files == {path: path.stat().st_mtime_ns for path in made.iterdir()}
