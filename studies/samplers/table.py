"""Make the table, the curves and the picture of samplers from their rows: a stage of studies/dvc.yaml."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torchvision.io import decode_png

from ddpm.pictures.figures import image_png, text_rows, to_png
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.table import markdown, rows_of

HERE, REAL, EXCESS = Path("studies/samplers"), "test images", "frechet_excess"


def main() -> None:
    """Write them; a cell of the table has a value for each seed."""
    with Stage("samplers_table") as stage:
        folder = stage.input(HERE / "rows")
        rows, made_in = rows_of(folder)
        stage.write(HERE / "table.md", markdown(table(rows), made_in))
        stage.write(HERE / "curves.png", curves(rows))
        first = rows["seed"].min()
        stage.write(HERE / "pictures.png", titled(folder / f"{first}.png", rows[rows["seed"] == first]))


def table(rows: pd.DataFrame) -> list[list[str]]:
    """Return the scores of each setting and seed, and the span of test images."""
    lines = [["sampler: NFE", "excess", "C2ST at 8 levels"]]
    for (name, steps), each in rows.groupby(["sampler", "evaluations"], sort=False):
        excess, told = each[EXCESS], 100 * each["c2st"]
        if name == REAL:
            spans = [f"{excess.min():.3f} to {excess.max():.3f}", f"{told.min():.1f} to {told.max():.1f} %"]
            lines.append([REAL, *spans])
        else:
            seeds = [f"{value:.3f}" for value in excess], [f"{value:.1f}" for value in told]
            lines.append([f"{name}: {steps}", ", ".join(seeds[0]), f"{', '.join(seeds[1])} %"])
    return lines


def curves(rows: pd.DataFrame) -> bytes:
    """Draw the excess of the samplers with several numbers of evaluations, and the span of test images."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    real, made = (rows[rows["sampler"] == REAL], rows[rows["sampler"] != REAL])
    axis.axhspan(real[EXCESS].min(), real[EXCESS].max(), color="grey", alpha=0.2, label=REAL)
    for name, each in made.groupby("sampler", sort=False):
        means = each.groupby("evaluations")[EXCESS].mean()
        if len(means) > 1:
            [line] = axis.plot(means.index, means, label=str(name))
            axis.plot(each["evaluations"], each[EXCESS], "o", alpha=0.6, color=line.get_color())
    axis.set(xscale="log", yscale="log", xlabel="evaluations of the network (NFE)", ylabel="excess, classifier b")
    ticks = sorted({*made["evaluations"]})
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False)
    return to_png(figure)


def titled(path: Path, rows: pd.DataFrame) -> bytes:
    """Write beside each row of samples in a picture how it was made."""
    made = rows[rows["sampler"] != REAL]
    names = [f"{name}: {steps}" for name, steps in zip(made["sampler"], made["evaluations"], strict=True)]
    picture = decode_png(torch.from_numpy(np.fromfile(path, np.uint8)))[:1]
    return image_png(torch.cat([text_rows(names, picture.shape[1] // len(names)), picture], dim=2), scale=1)


if __name__ == "__main__":
    run(main)
