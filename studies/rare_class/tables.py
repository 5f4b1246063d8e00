"""Print tables and draw a plot of the study of rare classes, from the rows in studies/rare_class/results.

    python -m studies.rare_class.tables confirming

Methods compared on the validation pool give a table. Methods confirmed on test images give two: the first method uses
no generator, and the others are compared with it. Both draw f1.png next to the rows.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ddpm.pictures.figures import to_png
from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_whole
from studies.rare_class.imbalance import count_and_seed
from studies.rare_class.keeping import RESULTS, Facts, read_rows
from studies.rare_class.measures import measures

try:
    from scipy.stats import t as student
except ModuleNotFoundError:
    sys.exit("error: the study needs scipy and imbalanced-learn; `pip install -e '.[rare]'` installs them")

SHOWN = ("rare_f1", "rare_recall", "rare_precision", "frequent_accuracy")
LEAST_F1 = 0.86  # of the dot plot; what is worse stands at its edge, with its value


def main(folder: Path) -> None:
    """Print the table of a comparison; one with an oracle is a confirmation."""
    path = folder / "rows.jsonl"
    if not path.exists():
        raise UserError(f"{path}: no such file; run `make rare`")
    rows = read_rows(path)
    found, full = classifiers(rows), oracle(rows)
    if full is None:
        print(choosing_table(found))
        write_whole(folder / "f1.png", to_png(dots(found)))
    else:
        print(confirming_table(found, full))
        write_whole(folder / "f1.png", to_png(curve(found, full)))


def classifiers(rows: Sequence[Facts]) -> pd.DataFrame:
    """Return a row for each classifier: its identity and its measures."""
    rare = rare_of(rows)
    copies = {
        (row["subset"], row["method"]): (row["near_copies"] or {}).get("distance")
        for row in rows
        if row["of"] == "copies"
    }
    found = []
    for row in rows:
        if row["of"] == "classifier":
            count, subset = count_and_seed(row["subset"])
            of = {"count": count, "subset": subset, "method": row["method"], "traces": row["traces"]}
            found.append({**of, "copies": copies.get((row["subset"], row["method"])), **shown(row, rare)})
    return pd.DataFrame(found).astype({"copies": float})


def oracle(rows: Sequence[Facts]) -> dict[str, float] | None:
    """Return the mean measures of the classifiers that learned from all images; None if there are none."""
    found = [shown(row, rare_of(rows)) for row in rows if row["of"] == "oracle"]
    return {name: float(np.mean([each[name] for each in found])) for name in SHOWN} if found else None


def rare_of(rows: Sequence[Facts]) -> list[int]:
    """Return the labels of the rare classes."""
    return next([*row["rare"].values()] for row in rows if row["of"] == "generator")


def shown(row: Facts, rare: Sequence[int]) -> dict[str, float]:
    """Return the measures of a row's confusion matrix that tables show."""
    found = measures(torch.tensor(row["confusion"]), rare)
    return {name: getattr(found, name) for name in SHOWN}


def choosing_table(chosen: pd.DataFrame) -> str:
    """Format a table for each count, best method first: means over subsets and seeds, and F1 of each subset."""
    tables = []
    for count, rows_of_count in chosen.groupby("count"):
        means = rows_of_count.groupby("method")[[*SHOWN, "traces"]].mean().sort_values("rare_f1", ascending=False)
        by_subset = rows_of_count.groupby(["method", "subset"])["rare_f1"].mean().unstack()
        rows = [["method", "F1, rare", "of each subset", "recall, rare", "accuracy, others", "traces"]]
        for method, row in means.iterrows():
            subsets = ", ".join(f"{each:.4f}" for each in by_subset.loc[str(method)])
            f1, *others = (f"{row[name]:.4f}" for name in ("rare_f1", "rare_recall", "frequent_accuracy", "traces"))
            rows.append([spaced(str(method)), f1, subsets, *others])
        tables.append(f"{count} images of each rare class:\n\n{as_table(rows)}")
    return "\n\n".join(tables)


def confirming_table(confirmed: pd.DataFrame, full: dict[str, float]) -> str:
    """Format two tables: means over seeds and subsets, and what each method gains over the first one.

    A gain is the mean of paired differences over subsets, with its 95 % confidence interval; its share of the way to
    the oracle follows in brackets.

    Raises:
        UserError: the first method uses a generator.
    """
    first = confirmed["method"].iloc[0]
    if "sampled" in first.split("+"):
        raise UserError(f"methods: the first, {first}, is the baseline; put one without sampled there")
    shown = ("rare_f1", "rare_recall", "rare_precision", "traces")
    scores = [["images", "method", "F1, rare", "recall, rare", "precision, rare", "traces"]]
    gains = [["images", "method", "F1 gained", "accuracy gained, others", "worth", "copies"]]
    subsets = confirmed.groupby(["count", "method", "subset"])[[*SHOWN, "traces", "copies"]].mean()
    for count in sorted(confirmed["count"].unique()):
        base = subsets.loc[count, first]
        for method in confirmed["method"].unique():
            each, of = subsets.loc[count, method], [str(count), spaced(method)]
            scores.append([*of, *(f"{each[name].mean():.4f}" for name in shown)])
            if method == first:
                continue
            gained = (each["rare_f1"] - base["rare_f1"]).to_numpy()
            left = full["rare_f1"] - base["rare_f1"].mean()
            way = f" ({100 * gained.mean() / left:.0f} %)" if left > 0 else ""
            others = (each["frequent_accuracy"] - base["frequent_accuracy"]).to_numpy()
            copies = each["copies"].mean() if "sampled" in method.split("+") else np.nan
            worth_of = worth(confirmed, method, count)
            near = "" if np.isnan(copies) else f"{100 * copies:.1f} %"
            gains.append([*of, interval(gained) + way, interval(others), worth_of, near])
    scores.append(["all", "oracle", *(f"{full[name]:.4f}" for name in shown[:-1]), ""])
    return f"{as_table(scores)}\n\n{as_table(gains)}"


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table; the first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "| --- " * len(rows[0]) + "|", *body])


def spaced(method: str) -> str:
    """Format a method's name so that a narrow column can break it."""
    return method.replace("+", " + ")


def interval(differences: np.ndarray) -> str:
    """Format the mean of paired differences with its 95 % confidence interval; without it for a single difference."""
    count = len(differences)
    if count == 1:
        return f"{differences.mean():+.4f}"
    error = differences.std(ddof=1) / count**0.5
    return f"{differences.mean():+.4f} ± {student.ppf(0.975, count - 1) * error:.4f}"


def worth(confirmed: pd.DataFrame, method: str, count: int) -> str:
    """Estimate how many real images of a class give the same F1 without a generator, between the tried counts.

    Uses the subsets that all counts have, and interpolates over the logarithm of the count. Beyond the largest count
    there is no estimate.
    """
    counts = confirmed.groupby("subset")["count"].nunique()
    common = confirmed[confirmed["subset"].isin(counts[counts == confirmed["count"].nunique()].index)]
    means = common.groupby(["method", "count"])["rare_f1"].mean()
    if method not in means.index.get_level_values("method"):
        return ""
    base, f1 = means.loc[confirmed["method"].iloc[0]].cummax(), float(means.loc[method].loc[count])
    base = base[~base.duplicated()]  # the smallest of counts with equal F1
    if f1 > base.iloc[-1]:
        return f"over {base.index[-1]}"
    if f1 < base.iloc[0]:
        return f"under {base.index[0]}"
    return f"{np.exp(np.interp(f1, base.to_numpy(), np.log(base.index.to_numpy()))):.0f}"


def dots(chosen: pd.DataFrame) -> Figure:
    """Plot the F1 of the rare classes of each method, the best on top: a dot for each subset, and a bar at the mean."""
    by_subset = chosen.groupby(["method", "subset"])["rare_f1"].mean().unstack()
    by_subset = by_subset.loc[by_subset.mean(axis=1).sort_values().index]
    places, best = range(len(by_subset)), float(by_subset.to_numpy().max())
    figure = Figure(figsize=(8, 0.24 * len(by_subset) + 0.8), layout="constrained")
    axis = figure.subplots()
    colours = ["tab:orange" if "sampled" in method.split("+") else "tab:blue" for method in by_subset.index]
    for subset in by_subset:
        axis.scatter(by_subset[subset], places, color=colours, s=18)
    axis.scatter(by_subset.mean(axis=1), places, color=colours, marker="|", s=160)
    for place, mean in zip(places, by_subset.mean(axis=1), strict=True):
        if mean < LEAST_F1:
            axis.text(LEAST_F1, place, f" {mean:.2f}", va="center", fontsize=8)
    axis.set(xlim=(LEAST_F1, best + 0.005), xlabel="F1 of the rare classes (orange: with sampled images)")
    axis.set_yticks(places, [spaced(method) for method in by_subset.index], fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def curve(confirmed: pd.DataFrame, full: dict[str, float]) -> Figure:
    """Plot the F1 of the rare classes against their number of images; bands go from the worst to the best subset."""
    figure = Figure(figsize=(6, 4))
    axis = figure.subplots()
    subsets = confirmed.groupby(["method", "count", "subset"], sort=False)["rare_f1"].mean()
    for method in confirmed["method"].unique():
        by_count = subsets[method].groupby("count")
        counts = sorted(by_count.groups)
        (line,) = axis.plot(counts, by_count.mean()[counts], marker="o", label=spaced(method))
        axis.fill_between(counts, by_count.min()[counts], by_count.max()[counts], color=line.get_color(), alpha=0.15)
    axis.axhline(full["rare_f1"], color="black", linestyle=":", label="oracle: all images")
    axis.set(xscale="log", xlabel="real images of each rare class", ylabel="F1 of the rare classes, mean")
    axis.set_xticks(sorted(confirmed["count"].unique()), [str(each) for each in sorted(confirmed["count"].unique())])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="comparisons; by default all")
    for name in parser.parse_args().names or sorted(path.name for path in RESULTS.iterdir()):
        run(partial(main, RESULTS / name))
