"""Draw the pictures of README.md, and fill its table of scores.

    python -m scripts.readme

The table comes from metrics/, the plot from studies/speedrun/quality.csv. The other pictures show samples, which a
fresh clone lacks; `make repro` makes them.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from ddpm.images.splits import Samples, load_samples
from ddpm.pictures.figures import enlarged, image_gif, image_png, text_rows, tile, to_png
from exact_stages.console import UserError, run
from exact_stages.files import write_whole
from scripts.reporting.runs import Run, open_run
from scripts.results import numbers, spread_of

README, PICTURES = Path("README.md"), Path("docs/pictures")
SAMPLES, MEASURED = Path("data/samples"), Path("studies/speedrun/quality.csv")
BEGIN, END = "<!-- scores -->\n", "<!-- end of scores -->"

# The text of each row, the format of its values, and the paths of these: for samples, and for real images.
PERCENT = "{:.1%}"
ROWS = {
    "Frechet distance to training images (less is better)": (
        "{:.3f}",
        "scores.b.samples.frechet",
        "scores.b.test.frechet",
    ),
    "Show the class asked for": (PERCENT, "scores.samples.label_accuracy", "scores.test.label_accuracy"),
    "Accuracy of a classifier trained on them": (PERCENT, "accuracy.samples.accuracy", "accuracy.real.accuracy"),
    "A network tells them from training images (chance: 50 %)": (
        "{:.0%}",
        "scores.samples.two_sample_accuracy",
        "scores.baseline.two_sample_accuracy",
    ),
    "Nearer to a training image than 99 % of test images, pixels": (PERCENT, "scores.samples.near_copies_pixels", ""),
}

SCALE, GAP = 3, 2  # the enlargement, and pixels between images before it
OF_A_CLASS = 4  # samples in a column of the still picture
MOVING, LEVELS = 8, 16  # columns of the animation; more grey levels would make it larger than 500 KB
NAMES = 90  # pixels of the column of names: those of t vary in width
X_LIMITS = (4, 450)  # minutes


def main() -> None:
    """Write the table and the plot, then the pictures of samples.

    Raises:
        UserError: a stage is not up to date, so that README would show numbers of another run.
    """
    found = open_run("")
    if found.left_out:
        raise UserError(f"{found.left_out}; README.md is unchanged")
    write_whole(README, filled(README.read_text(), table(found)).encode())
    write_whole(PICTURES / "quality.png", quality(pd.read_csv(MEASURED)))
    population, gallery = (load_samples(SAMPLES / f"{name}.safetensors") for name in ("filtered", "gallery"))
    write_whole(PICTURES / "samples.png", samples(population))
    write_whole(PICTURES / "denoising.gif", denoising(gallery))
    print(f"{README}: the table; {PICTURES}: quality.png, samples.png, denoising.gif")


def filled(text: str, rows: str) -> str:
    """Replace what is between the markers."""
    return re.sub(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", lambda _: rows, text, flags=re.DOTALL)


def table(found: Run) -> str:
    """Return the scores of a run as a table, and a line that says how they were made."""
    values, made = numbers(found), found.mapping("metrics/train/environment.json")
    count = found.mapping("metrics/evaluate/scores.json")["count"]
    lines = ["| | samples | real images |", "| --- | --- | --- |"]
    for text, (form, *paths) in ROWS.items():
        lines.append(f"| {text} | {' | '.join(cell(values, form, path) for path in paths)} |")
    lines += [
        "",
        f"{count:,} samples that the filter kept: a classifier rejects the least clear ones.",
        f"Trained on {made['threads']} thread{'s' if made['threads'] > 1 else ''} of an {made['cpu'].split(',')[0]}.",
        "± is the standard error: how much other sets of as many images would differ.",
        "",
    ]
    return "\n".join(lines)


def cell(values: Mapping[str, float], form: str, path: str) -> str:
    """Format the value at this path; a distance with its spread. A dash for none; without a path 1 %."""
    if not path:
        return "1 %"
    if path not in values:
        return "-"
    text = form.format(values[path]).replace("%", " %")
    return f"{text} ± {form.format(values[spread_of(path)])}" if path.endswith("frechet") else text


def samples(population: Samples) -> bytes:
    """Draw the first samples of each class in a column."""
    images, labels = population.images, population.labels
    assert labels is not None, "the default model is class-conditional"
    columns = torch.stack([images[labels == label][:OF_A_CLASS] for label in labels.unique()], dim=1)
    return image_png(tile(columns.flatten(0, 1), columns.shape[1], GAP), SCALE)


def denoising(gallery: Samples) -> bytes:
    """Animate the reverse process of samples of some classes: what each step leaves, and its estimate of x_0."""
    assert gallery.labels is not None, "the default model is class-conditional"
    labels = gallery.labels.tolist()
    shown = sorted(labels.index(label) for label in set(labels))[:MOVING]
    return image_gif(
        [
            _named(torch.cat([x_t[shown], pred_x_start[shown]]), [f"t = {t}", "estimate"])
            for x_t, pred_x_start, t in zip(gallery.x_t, gallery.pred_x_start, gallery.kept_t, strict=True)
        ],
        scale=1,
        milliseconds=400,
        hold=3000,
    )


def _named(images: Tensor, names: list[str]) -> Tensor:
    """Arrange images (N, 1, H, W) in rows with their names, as one grey image (1, H, W)."""
    coarse = (images.float() / 255 * (LEVELS - 1)).round() / (LEVELS - 1) * 255
    picture = enlarged(tile(coarse.to(torch.uint8), len(images) // len(names), GAP)[:1], SCALE)
    text = text_rows(names, SCALE * (images.shape[-2] + GAP))
    edge = picture.shape[1] - text.shape[1]
    text = F.pad(text, (NAMES - text.shape[2], 0, edge // 2, edge - edge // 2), value=255)
    return torch.cat([text, picture], dim=2)


def quality(rows: pd.DataFrame) -> bytes:
    """Plot Frechet distances against the CPU time of training: filled marks for 10,000 samples, hollow for 1,000.

    Rows of another machine are left out.
    """
    rows = rows[~rows["note"].str.startswith("another")]
    trained = rows["cpu_minutes"].notna()
    with style.context("default", after_reset=True):
        figure = Figure(figsize=(6.4, 3.6))
        axis = figure.subplots()
        for count, distance in zip(rows[~trained]["images"], rows[~trained]["frechet_b"], strict=True):
            axis.axhline(distance, color="grey", linewidth=1, linestyle="dashed")
            text = f"{count:,} real test images"
            axis.text(X_LIMITS[1], distance, text, color="grey", fontsize=8, ha="right", va="bottom")
        by_minutes = rows[trained].sort_values("cpu_minutes")
        for index, (name, group) in enumerate(by_minutes.groupby("project", sort=False)):
            filling = "none" if group["images"].max() < rows["images"].max() else "full"
            group = group.sort_values("cpu_minutes")
            axis.plot(group["cpu_minutes"], group["frechet_b"], "o-", color=f"C{index}", fillstyle=filling)
            end = (group["cpu_minutes"].iloc[-1], group["frechet_b"].iloc[-1])
            text = str(name).removeprefix("this project's ")
            axis.annotate(text, end, (7, 3), textcoords="offset points", color=f"C{index}")
        axis.set(xscale="log", yscale="log", xlim=X_LIMITS)
        axis.set(xlabel="CPU minutes of training", ylabel="Frechet distance, classifier b")
        for its, ticks in ((axis.xaxis, (5, 10, 20, 50, 100)), (axis.yaxis, (0.03, 0.1, 0.3, 1, 3, 10, 30))):
            its.set_ticks(ticks, [f"{each:g}" for each in ticks])
            its.set_ticks([], minor=True)
        axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
    return to_png(figure)


if __name__ == "__main__":
    run(main)
