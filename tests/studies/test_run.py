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
from ddpm.images.splits import Split, save_split
from studies.rare_class.run import CHOSEN_BY

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
CARD = DataCard(name="small", shape=(1, 8, 8), classes=("a", "b", "c"))
COUNTS = [5, 8, 12]
SMALL = {"counts": COUNTS, "target": 12, "pool": 10}
LEARN = {"channels": 2, "steps": 4, "batch_size": 4, "lr": 0.003, "check_every": 2}
QUICK = ("train.images=2000", "classifier.images=500", "sampler.steps=2", "model.channels=[4]")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The code, small params, and processed images: noise."""
    for name in ("src", "stages", "benchmarks", "studies"):
        copytree(ROOT / name, tmp_path / name, ignore=ignore_patterns("__pycache__", "results"))
    for split, count in (("train", 180), ("test", 30)):
        levels = torch.randint(0, 256, (count, *CARD.shape), generator=torch.Generator().manual_seed(count))
        found = Split(levels.to(torch.uint8), torch.arange(count) % 3)
        path = tmp_path / f"data/processed/{split}.safetensors"
        save_split(path, CARD, found.labels, torch.arange(count), (10,) * 3, [found.images])
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    edit(tmp_path, SMALL | {"learn": LEARN})
    return tmp_path


def edit(folder: Path, values: dict[str, Any]) -> None:
    path = folder / "studies/rare_class/params.yaml"
    YAML().dump(YAML().load(path) | values, path)


def study(folder: Path, *options: str, choose: bool = True) -> str:
    command = [sys.executable, "-m", "studies.rare_class.run", "--processes", "1", *options]
    command += ["--choose"] * choose
    environment = {**os.environ, "DDPM_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 or "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_rows_are_kept_until_the_code_changes(workspace: Path) -> None:
    results = workspace / "studies/rare_class/results/small"
    study(workspace, "--changes", *QUICK)
    rows = pd.read_csv(results / "choosing.csv")
    assert len(rows) == 2 * 3 * len(CHOSEN_BY)
    assert rows["code"].nunique() == 1
    made = pd.read_csv(results / "choosing_generated.csv")
    assert sorted(made["images"]) == sorted(COUNTS * 2)
    assert (made[made["images"] == 12]["candidates"] == 0).all()

    # An interrupted run: some rows are missing.
    files = {path: path.stat().st_mtime_ns for path in (workspace / "build/rare_class").iterdir()}
    rows.iloc[:-5].to_csv(results / "choosing.csv", index=False)
    assert "5/5" in study(workspace, "--changes", *QUICK)
    assert pd.read_csv(results / "choosing.csv").equals(rows)
    assert files == {path: path.stat().st_mtime_ns for path in (workspace / "build/rare_class").iterdir()}

    # Rows with images of other changes are added, rows of other params dropped.
    study(workspace, "--changes", *QUICK, "sampler.guidance=2")
    generated = rows["extra"].isin(["generated", "half"])
    assert len(pd.read_csv(results / "choosing.csv")) == len(rows) + sum(generated)
    edit(workspace, {"learn": LEARN | {"steps": 2}})
    study(workspace, "--changes", *QUICK)
    assert len(pd.read_csv(results / "choosing.csv")) == len(rows)
    assert "needs --choose" in study(workspace, "--changes", *QUICK, choose=False)


@pytest.mark.parametrize(
    ("change", "named"),
    [("train.image=3", "train.image"), ("train.images=a", "train.images"), ("x=1", "x"), ("train.lr=[", "train.lr")],
)
def test_a_wrong_change_is_named(workspace: Path, change: str, named: str) -> None:
    assert named in study(workspace, "--changes", change)
