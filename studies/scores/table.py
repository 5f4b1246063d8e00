"""Make the table of the scores themselves from its rows: a stage of studies/dvc.yaml."""

from pathlib import Path

import pandas as pd

from ddpm.cli.summary import NAMES
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.table import markdown, rows_of

HERE = Path("studies/scores")
COUNTS = (200, 600, 2_000, 5_000, 10_000)  # images on each side


def main() -> None:
    """Write it."""
    with Stage("scores_table") as stage:
        rows, made_in = rows_of(stage.input(HERE / "rows"))
        stage.write(HERE / "table.md", markdown(table(rows), made_in))


def table(rows: pd.DataFrame) -> list[list[str]]:
    """Return a line for each score, one for the faults, and one for the mixes."""
    lines = [["measured, by images", *(f"{count:,}" for count in COUNTS)]]
    for score in [each for each in NAMES if each in rows]:
        rms = (rows[score] ** 2).groupby(rows["count"]).mean() ** 0.5
        lines.append([f"z of {NAMES[score]}", *cells(rms, "{:.2f}")])
    found = rows.groupby(["count", "change"])["found"].mean().groupby("count").min()
    lines.append(["least share of a fault", *cells(100 * found, "{:.0f} %")])
    mixes = rows.groupby(["count", "mix"])["frechet"].agg(["mean", "std"])
    told = mixes.apply(lambda row: f"{row['mean']:.4f} ± {row['std']:.4f}", axis=1)
    lines.append(["distance, mix by chance; of all", *cells(told.groupby("count").agg("; ".join), "{}")])
    return lines


def cells(values: pd.Series, form: str) -> list[str]:
    """Return a text for each of COUNTS; empty where there is no value."""
    there = values.dropna()
    return [form.format(there[count]) if count in there else "" for count in COUNTS]


if __name__ == "__main__":
    run(main)
