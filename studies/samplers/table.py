"""Make the table, the curves and the picture of samplers from their rows: a stage of studies/dvc.yaml."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torchvision.io import decode_png

from ddpm.pictures.figures import image_png, text_rows, to_png
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.table import markdown

HERE, REAL, EXCESS = Path("studies/samplers"), "test images", "frechet_excess"


def main() -> None:
    """Write them; a cell of the table has a value for each seed."""
    with Stage("samplers_table") as stage:
        files = sorted(stage.input(HERE / "rows").glob("*.json"))
        found = [json.loads(file.read_bytes()) for file in files]
        rows = pd.DataFrame([row for each in found for row in each["rows"]])
        stage.write(HERE / "table.md", table(rows, [each["made_in"] for each in found]))
        stage.write(HERE / "curves.png", curves(rows))
        stage.write(HERE / "pictures.png", titled(files[0].with_suffix(".png"), found[0]["rows"]))


def table(rows: pd.DataFrame, made_in: list[dict[str, object]]) -> bytes:
    """Return the scores of each setting and seed, and the span of test images."""
    lines = [["sampler", "NFE", "excess of each seed", "error of one", "C2ST at 8 levels"]]
    columns = {EXCESS: ".3f", "c2st": ".1%"}
    for (name, steps), each in rows.groupby(["sampler", "evaluations"], sort=False):
        values = {key: (each[key].agg(["min", "max"]) if name == REAL else each[key]) for key in columns}
        cells = [(" to " if name == REAL else ", ").join(f"{v:{columns[key]}}" for v in values[key]) for key in columns]
        error = f"{each[f'{EXCESS}_error'].mean():.3f}"
        lines.append([str(name), str(steps or ""), cells[0], error, cells[1].replace("%", " %")])
    return markdown(lines, made_in)


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
    axis.set(
        xscale="log", yscale="log", xlabel="evaluations of the network (NFE)", ylabel="excess of the Frechet distance"
    )
    ticks = sorted({*made["evaluations"]})
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False)
    return to_png(figure)


def titled(path: Path, rows: list[dict[str, Any]]) -> bytes:
    """Write beside each row of samples in a picture how it was made."""
    names = [f"{row['sampler']}: {row['evaluations']}" for row in rows if row["sampler"] != REAL]
    picture = decode_png(torch.from_numpy(np.fromfile(path, np.uint8)))[:1]
    return image_png(torch.cat([text_rows(names, picture.shape[1] // len(names)), picture], dim=2), scale=1)


if __name__ == "__main__":
    run(main)
