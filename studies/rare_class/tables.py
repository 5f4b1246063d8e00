"""Make the table, the gains and the plot of rare classes from their rows: a stage of studies/dvc.yaml.

Rows of MNIST are of this study; those of the other sets are pinned.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm.pictures.figures import to_png
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.table import markdown, rows_of

HERE = Path("studies/rare_class")
WAYS = ("generated", "real")
OVER_ADJUST = "generated, over adjust"
VARIED = {"none": "no augmentation", "generic": "RandAugment, crops", "expert": "an expert's augmentation"}
NAMES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
SUBSETS, COMPARISONS, FEW = 5, 20, 10
# Two-sided quantiles of Student's t for SUBSETS: at the level of 0.05, and of 0.05 / COMPARISONS (Bonferroni)
T, T_CORRECTED = 2.7764, 6.7583
PINNED = ("scores.csv", "scores_generated.csv")
LINES = {  # of the table, by the augmentation and what fills up the classes
    ("none", "generated"): "without augmentation",
    ("none", OVER_ADJUST): "the same, over logit adjustment",
    ("none", "real"): "as many real images, without augmentation",
    ("generic", "generated"): "on top of crops and RandAugment",
    ("generic", "real"): "as many real images there",
    ("expert", "generated"): "on top of an expert's augmentation",
}


def main() -> None:
    """Write them."""
    with Stage("rare_class_table") as stage:
        rows, made_in = rows_of(stage.input(HERE / "rows"))
        results = stage.input(HERE / "results")
        scores, made = ({name: pd.read_csv(results / name / file) for name in [*NAMES][1:]} for file in PINNED)
        scores, made = {"mnist": rows[rows["balance"].notna()]} | scores, {"mnist": rows[rows["class"].notna()]} | made
        gained = {name: gains(each) for name, each in scores.items()}
        lines = [["accuracy gained, points", *NAMES.values()], *told(gained)]
        fates = [shares(each) for each in made.values()]
        lines.append([f"filtered, of candidates of classes with {FEW} images", *(f"{each:.1f} %" for each, _ in fates)])
        lines.append(["copies among candidates, the most in one class", *(f"{each:.1f} %" for _, each in fates)])
        stage.write(HERE / "table.md", markdown(lines, made_in))
        every = pd.concat(gained, names=["set"]).round(4).droplevel(1).query("extra != 'real'")
        stage.write(HERE / "gains.csv", every.to_csv(lineterminator="\n").encode())
        stage.write(HERE / "gains.png", to_png(figure(gained)))


def measures(scores: pd.DataFrame) -> dict[str, str]:
    """Return the columns with F1 by their numbers of images, but for the largest, and the accuracy on all classes."""
    counts = sorted(int(name[3:]) for name in map(str, scores) if name.startswith("f1_"))
    return {**{f"f1_{count}": str(count) for count in counts[:-1]}, "accuracy": "all"}


def gains(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what filling up gains over oversampling with equal augmentation, in percentage points.

    OVER_ADJUST is what it gains over logit adjustment, both without augmentation. A subset is one sample. interval:
    half the width of the 95 % interval of the mean. sure: whether the interval of generated images, corrected for all
    COMPARISONS of a set, leaves 0 out.
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
            gain, error = differences.mean(), differences.std(ddof=1) / len(differences) ** 0.5
            rows.append((method[1], name, images, gain, T * error, name != "real" and abs(gain) > T_CORRECTED * error))
    return pd.DataFrame(rows, columns=["augment", "extra", "images", "gain", "interval", "sure"])


def told(gained: dict[str, pd.DataFrame]) -> list[list[str]]:
    """Return a line for each of LINES, with the gain of accuracy in each set; those that are sure are bold."""
    lines = []
    for (augment, extra), title in LINES.items():
        cells = []
        for table in gained.values():
            chosen = (table["augment"] == augment) & (table["extra"] == extra) & (table["images"] == "all")
            [row] = table[chosen].to_dict("records")
            mark = "**" if row["sure"] else ""
            cells.append(f"{mark}{row['gain']:+.1f} ± {row['interval']:.1f}{mark}")
        lines.append([title, *cells])
    return lines


def shares(made: pd.DataFrame) -> tuple[float, float]:
    """Return shares of candidates in percent: filtered ones of classes with FEW images, and copies, of any class."""
    filled = made[made["candidates"] > 0]
    filtered = (filled["filtered"] / filled["candidates"])[filled["images"] == FEW].mean()
    sums = filled.groupby(["class", "images"])[["candidates", "copies"]].sum()
    return 100 * float(filtered), 100 * float((sums["copies"] / sums["candidates"]).max())


def figure(gained: dict[str, pd.DataFrame]) -> Figure:
    """Plot what generated images and, dotted, real ones gain, with 95 % intervals, a panel for each set."""
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
