"""Print the tables of the study of rare classes, and draw its plot, from the rows in studies/rare_class/results.

python -m studies.rare_class.tables
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ddpm.pictures.figures import to_png
from exact_stages.console import UserError, run
from exact_stages.files import write_whole

RESULTS = Path("studies/rare_class/results")
WAYS = ("generated", "real")
OVER_ADJUST = "generated, over adjust"
VARIED = {"none": "no augmentation", "generic": "RandAugment, crops", "expert": "an expert's augmentation"}
NAMES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
LEVEL = 0.05


def main() -> None:
    """Print the tables of each set, and draw the gains of all."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    files = sorted(RESULTS.glob("*/scores.csv"), key=lambda path: [*NAMES, path.parent.name].index(path.parent.name))
    gained = {}
    for path in files:
        scores, made = complete(path), pd.read_csv(path.with_name("scores_generated.csv"))
        gained[path.parent.name] = gains(scores)
        tables = [means(scores), told(gained[path.parent.name]), filled(made), copied(made)]
        print(f"## {path.parent.name}", *map(as_markdown, tables), sep="\n\n", end="\n\n")
    write_whole(RESULTS / "gains.png", to_png(figure(gained)))


def complete(path: Path) -> pd.DataFrame:
    """Read scores.

    Raises:
        UserError: not every method has every subset and seed once, as after an interruption.
    """
    scores = pd.read_csv(path)
    methods = scores.groupby(["balance", "augment", "extra"]).ngroups
    if len(scores) != (total := methods * scores["subset"].nunique() * scores["seed"].nunique()):
        raise UserError(f"{path}: has {len(scores)} of {total} rows; finish with `python -m studies.rare_class.run`")
    return scores


def measures(scores: pd.DataFrame) -> dict[str, str]:
    """Return the columns with F1 by their numbers of images, but for the largest, and the accuracy on all classes."""
    counts = sorted(int(name[3:]) for name in map(str, scores) if name.startswith("f1_"))
    return {**{f"f1_{count}": str(count) for count in counts[:-1]}, "accuracy": "all"}


def means(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean F1 and accuracy in percent of each method, over subsets and seeds."""
    columns = measures(scores)
    method = scores[["balance", "augment", "extra"]].apply(lambda parts: " + ".join(parts[parts != "none"]), axis=1)
    found = scores.groupby(method.rename("method"), sort=False)[[*columns]].mean() * 100
    return found.rename(columns=columns).round(1).reset_index()


def gains(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what filling up gains over oversampling with equal augmentation, in percentage points.

    OVER_ADJUST is what it gains over logit adjustment, both without augmentation. A subset is one sample. interval:
    half the width of the 95 % interval of the mean. sure: whether Holm's correction of t tests, for all comparisons of
    generated images, leaves it below LEVEL.
    """
    by_subset = scores.groupby(["balance", "augment", "extra", "subset"]).mean(numeric_only=True) * 100
    compared = [
        (("oversample", augment, extra), ("oversample", augment, "none")) for augment in VARIED for extra in WAYS
    ]
    compared.insert(1, (("oversample", "none", "generated"), ("adjust", "none", "none")))
    rows = []
    for method, other in compared:
        name = OVER_ADJUST if other[0] == "adjust" else method[2]
        for column, images in measures(scores).items():
            differences = (by_subset[column][method] - by_subset[column][other]).to_numpy()
            found, mean = stats.ttest_1samp(differences, 0), float(differences.mean())
            half = float(found.confidence_interval().high) - mean
            rows.append((method[1], name, images, mean, half, float(found.pvalue)))
    table = pd.DataFrame(rows, columns=["augment", "extra", "images", "gain", "interval", "p"])
    tested = table["extra"] != "real"
    table["sure"] = False
    table.loc[tested, "sure"] = holm(table.loc[tested, "p"].to_numpy()) < LEVEL
    return table


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values for as many comparisons (Holm 1979)."""
    order = p.argsort()
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected


def told(table: pd.DataFrame) -> pd.DataFrame:
    """Lay gains out by method and number of images; gains that are sure are bold."""
    mark = table["sure"].map({True: "**", False: ""})
    text = mark + table["gain"].map("{:+.1f}".format) + " ± " + table["interval"].map("{:.1f}".format) + mark
    table = table.assign(text=text, method=table["augment"] + " + " + table["extra"])
    return table.pivot_table("text", "method", "images", "first", sort=False).reset_index()


def filled(made: pd.DataFrame) -> pd.DataFrame:
    """Return what happened to candidates, in percent, as the mean of classes of each number of images."""
    filled_up = made[made["candidates"] > 0]
    fates = filled_up[["accepted", "filtered", "copies"]]
    shares = fates.div(filled_up["candidates"], axis=0).groupby(filled_up["images"]).mean() * 100
    return shares.round(1).rename(columns=lambda name: f"{name}, %").reset_index()


def copied(made: pd.DataFrame) -> pd.DataFrame:
    """Return the share of copies among the candidates of each class, in percent, by its number of images."""
    sums = made[made["candidates"] > 0].groupby(["class", "images"])[["candidates", "copies"]].sum()
    return (sums["copies"] / sums["candidates"] * 100).round(1).unstack().rename_axis("copies, %").reset_index()


def as_markdown(table: pd.DataFrame) -> str:
    """Format a Markdown table."""
    rows = [[*map(str, table.columns)], ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def figure(gained: dict[str, pd.DataFrame]) -> Figure:
    """Plot what generated images and, dashed, real ones gain, with 95 % intervals, a panel for each set."""
    drawing = Figure(figsize=(4 * len(gained), 3.6), layout="constrained")
    panels: Sequence[Axes] = drawing.subplots(1, len(gained), squeeze=False)[0]
    for axis, (name, table) in zip(panels, gained.items(), strict=True):
        table = table[table["images"] != "all"].astype({"images": int})
        images = sorted(table["images"].unique())
        for colour, (augment, label) in zip(("tab:blue", "tab:orange", "tab:green"), VARIED.items(), strict=True):
            by_extra = table[table["augment"] == augment].set_index("extra")
            for extra, style in (("generated", "-"), ("real", ":")):
                rows = by_extra.loc[extra]
                shown = label if extra == "generated" else None
                bars = rows["interval"] if extra == "generated" else None
                axis.errorbar(rows["images"], rows["gain"], bars, color=colour, linestyle=style, capsize=3, label=shown)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(xscale="log", title=NAMES.get(name, name), xlabel="real images of the class")
        axis.set_xticks(images, [*map(str, images)])
        axis.minorticks_off()
    panels[0].set_ylabel("F1 gained, percentage points")
    panels[0].legend(frameon=False, fontsize=8, title="dotted: real images in their place", title_fontsize=8)
    return drawing


if __name__ == "__main__":
    run(main)
