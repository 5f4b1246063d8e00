"""Make the table and the picture of the recipe from its rows: a stage of studies/dvc.yaml."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ddpm.pictures.figures import to_png
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.table import markdown, rows_of

HERE, EXCESS, ERROR = Path("studies/recipe"), "frechet_excess", "frechet_excess_error"


def main() -> None:
    """Write both, the best change first."""
    with Stage("recipe_table") as stage:
        rows, made_in = rows_of(stage.input(HERE / "rows"))
        rows["change"] = rows["change"].replace("", "the default")
        means = rows.groupby("change")[[EXCESS, ERROR, "images_seen"]].mean().sort_values(EXCESS)
        lines = [["change", "excess of each seed", "error of one", "images seen"]]
        for name, mean in means.iterrows():
            seeds = ", ".join(f"{each:.3f}" for each in rows[rows["change"] == name][EXCESS])
            told = f"`{name}`" if "=" in str(name) else str(name)
            lines.append([told, seeds, f"{mean[ERROR]:.3f}", f"{mean['images_seen']:,.0f}"])
        stage.write(HERE / "table.md", markdown(lines, made_in))
        stage.write(HERE / "trials.png", picture(rows, [*means.index]))


def picture(rows: pd.DataFrame, names: list[str]) -> bytes:
    """Draw a dot for each row, the best change on top, and a line at the mean of the default."""
    figure = Figure(figsize=(8, 0.5 + 0.28 * len(names)), layout="constrained")
    axis = figure.subplots()
    axis.plot(rows[EXCESS], [names[::-1].index(each) for each in rows["change"]], "o", alpha=0.6)
    axis.axvline(rows[rows["change"] == "the default"][EXCESS].mean(), color="grey", linestyle="dashed")
    axis.set(xscale="log", xlabel="excess of the Frechet distance; left is better", yticks=range(len(names)))
    axis.set_yticklabels(names[::-1])
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    return to_png(figure)


if __name__ == "__main__":
    run(main)
