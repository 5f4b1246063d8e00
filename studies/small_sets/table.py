"""Make the table of digits by their number from its rows: a stage of studies/dvc.yaml."""

from pathlib import Path

from exact_stages.console import run
from exact_stages.stage import Stage
from studies.table import markdown, rows_of

HERE, SHARES = Path("studies/small_sets"), ("conditional_accuracy", "near_copies")


def main() -> None:
    """Write it; a cell has a value for each subset."""
    with Stage("small_sets_table") as stage:
        rows, made_in = rows_of(stage.input(HERE / "rows"))
        lines = [["digits", "excess", "error of one", "conditional accuracy", "near copies"]]
        for count, each in rows.groupby("digits"):
            excess = ", ".join(f"{value:.3f}" for value in each["frechet_excess"])
            shares = [", ".join(f"{100 * float(value):.1f}" for value in each[key]) + " %" for key in SHARES]
            lines.append([f"{count:,}", excess, f"{each['frechet_excess_error'].mean():.3f}", *shares])
        stage.write(HERE / "table.md", markdown(lines, made_in))


if __name__ == "__main__":
    run(main)
