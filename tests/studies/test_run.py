"""The study on small images: what is finished is not computed again, and what has changed is."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from ddpm.images.card import DataCard
from ddpm.images.splits import save_split
from studies.rare_class.learning import METHODS
from studies.rare_class.run import fingerprint
from tests.small import images

ROOT = Path(__file__).parents[2]
CARD = DataCard(name="small", shape=(1, 8, 8), classes=("a", "b", "c"))
COUNTS = [5, 8, 12]
LEARN = {"channels": 2, "steps": 4, "batch_size": 4, "lr": 0.003, "check_every": 2}


def study(folder: Path) -> pd.DataFrame:
    environment = {**os.environ, "DDPM_DEVICE": "cpu"}
    subprocess.run(
        [sys.executable, "-m", "studies.rare_class.run"], cwd=folder, env=environment, check=True, timeout=500
    )
    return pd.read_csv(folder / "studies/rare_class/results/small/scores.csv", dtype={"code": str})


@pytest.mark.long
def test_rows_are_kept_until_params_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("src", "stages", "studies"):
        copytree(ROOT / name, tmp_path / name, ignore=ignore_patterns("__pycache__", "results"))
    for split, count in (("train", 180), ("test", 30)):
        path, labels = tmp_path / f"data/processed/{split}.safetensors", torch.arange(count) % 3
        save_split(path, CARD, labels, torch.arange(count), (10,) * 3, [images(count, CARD.shape)])
    params, path = YAML().load(ROOT / "params.yaml"), tmp_path / "studies/rare_class/params.yaml"
    params["train"]["images_seen"], params["classifier"]["images_seen"] = 640, 320
    params["model"]["channels"], params["sample"]["scored"]["steps"] = [4], 2
    YAML().dump(params, tmp_path / "params.yaml")
    of_study = YAML().load(path) | {"counts": COUNTS, "target": 12, "pool": 10, "learn": LEARN}
    YAML().dump(of_study, path)
    rows = study(tmp_path)
    assert len(rows) == 5 * 3 * len(METHODS)
    results = tmp_path / "studies/rare_class/results/small"
    tallies = pd.read_csv(results / "scores_generated.csv")
    assert sorted(tallies["images"]) == sorted(COUNTS * 5)
    assert (tallies[tallies["images"] == 12]["candidates"] == 0).all()

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "build/rare_class").rglob("*.safetensors")}
    code = rows["code"].where(rows.index < len(rows) - 5, "other")  # of an interrupted run, and of other code
    rows.assign(accuracy=2, code=code).drop(index=0).to_csv(results / "scores.csv", index=False)
    again = study(tmp_path)
    assert again["accuracy"].eq(2).tolist() == [True] * (len(rows) - 6) + [False] * 6
    assert made == {path: path.stat().st_mtime_ns for path in made}

    monkeypatch.chdir(tmp_path)
    assert {fingerprint()} == {*again["code"]}
    YAML().dump(of_study | {"target": 13}, path)
    assert fingerprint() not in {*again["code"]}
