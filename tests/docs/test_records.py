"""The records in studies/: numbers that are those of the kept runs."""

import json
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "studies"


def test_quality_against_minutes_is_that_of_the_kept_runs() -> None:
    rows = pd.read_csv(STUDIES / "speed/quality.csv", index_col=["project", "cpu_minutes"])

    seeds = pd.read_csv(STUDIES / "speed/seeds.csv")["scores.b.samples.frechet"]
    expected = {("this project", 5): (mean(seeds), stdev(seeds))}
    record = json.loads((ROOT / "results/plain_ddpm/record.json").read_text())
    samples = record["metrics"]["evaluate/scores"]["b"]["samples"]
    name = "this project's plain DDPM"
    expected[name, 96] = samples["frechet"], samples["frechet_deviation"]
    for of, (distance, spread) in expected.items():
        found = [rows["frechet_b"][of], rows["spread"][of]]
        assert found == pytest.approx([distance, spread], abs=6e-5)
