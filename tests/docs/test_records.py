"""The records in studies/: tables that fit a page, and numbers that are those of the kept runs."""

import json
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "studies"
RECORDS = sorted(STUDIES.glob("*/README.md"))


@pytest.mark.parametrize("page", RECORDS, ids=lambda page: page.parent.name)
def test_a_page_is_narrow(page: Path) -> None:
    fenced = False
    for line in page.read_text().splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("|"):
            assert line.count("|") <= 7, line
        elif not fenced:
            assert len(line) <= 100 or "](" in line, line


def test_quality_against_minutes_is_that_of_the_kept_runs() -> None:
    rows = pd.read_csv(STUDIES / "speedrun/quality.csv", index_col=["project", "cpu_minutes"])
    seeds = pd.read_csv(STUDIES / "speedrun/seeds.csv")["scores.b.samples.frechet"]
    expected = {("this project", 5): (seeds.mean(), seeds.std())}
    samples = json.loads((ROOT / "results/article/metrics/evaluate/scores.json").read_text())["b"]["samples"]
    name = "this project's reference configuration"
    expected[name, 96] = samples["frechet"], samples["frechet_deviation"]
    for of, (distance, spread) in expected.items():
        found = [rows["frechet_b"][of], rows["spread"][of]]
        assert found == pytest.approx([distance, spread], abs=6e-5)
