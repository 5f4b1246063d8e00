"""Print tables and draw a plot of the study of rare classes, from the rows in studies/rare_class/results.

    python -m studies.rare_class.tables confirming

Methods compared on the validation pool give one table. Methods confirmed on test images give another, and f1.png next
to the rows. The first method uses no generator; the others are compared with it.
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

SHOWN = {
    "rare_f1": "F1, rare",
    "rare_recall": "recall, rare",
    "rare_precision": "precision, rare",
    "balanced_accuracy": "balanced accuracy",
    "frequent_accuracy": "accuracy, others",
}


def main(folder: Path) -> None:
    """Print the table of a comparison; one with an oracle is a confirmation."""
    path = folder / "rows.jsonl"
    if not path.exists():
        raise UserError(f"{path}: no such file; run `make rare`")
    rows = read_rows(path)
    found, full = classifiers(rows), oracle(rows)
    if full is None:
        print(choosing_table(found))
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
    """Format a row for each count and method, best first: means over subsets and seeds, and F1 of each subset."""
    lines = [f"| images | method | {' | '.join(SHOWN.values())} | traces | F1 of each subset |"]
    lines.append("| --- " * (len(SHOWN) + 4) + "|")
    for count, rows_of_count in chosen.groupby("count"):
        means = rows_of_count.groupby("method")[[*SHOWN, "traces"]].mean().sort_values("rare_f1", ascending=False)
        by_subset = rows_of_count.groupby(["method", "subset"])["rare_f1"].mean().unstack()
        for method, row in means.iterrows():
            cells = [str(count), str(method), *(f"{row[name]:.4f}" for name in SHOWN), f"{row['traces']:.4f}"]
            lines.append(f"| {' | '.join(cells)} | {', '.join(f'{each:.4f}' for each in by_subset.loc[str(method)])} |")
    return "\n".join(lines)


def confirming_table(confirmed: pd.DataFrame, full: dict[str, float]) -> str:
    """Format a row for each count and method: means over subsets, and differences from the first method.

    The first method has no generator. Intervals are Student's t for the mean of paired differences, one for each
    subset.
    """
    first = confirmed["method"].iloc[0]
    if "sampled" in first.split("+"):
        raise UserError(f"methods: the first, {first}, is the baseline; put one without sampled there")
    subsets = confirmed.groupby(["count", "method", "subset"])[[*SHOWN, "traces", "copies"]].mean()
    further = ["traces", "F1 gained", "of the way to the oracle", "others gained", "worth", "copies"]
    titles = ["images", "method", *SHOWN.values(), *further]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for count in sorted(confirmed["count"].unique()):
        base = subsets.loc[count, first]
        for method in confirmed["method"].unique():
            each = subsets.loc[count, method]
            cells = [str(count), method, *(f"{each[name].mean():.4f}" for name in [*SHOWN, "traces"])]
            if method == first:
                lines.append(f"| {' | '.join(cells)} | | | | | |")
                continue
            gained = (each["rare_f1"] - base["rare_f1"]).to_numpy()
            left = full["rare_f1"] - base["rare_f1"].mean()
            others = (each["frequent_accuracy"] - base["frequent_accuracy"]).to_numpy()
            way = f"{100 * gained.mean() / left:.0f} %" if left > 0 else ""
            cells += [interval(gained), way, interval(others), worth(confirmed, method, count)]
            copies = each["copies"].mean() if "sampled" in method.split("+") else np.nan
            lines.append(f"| {' | '.join(cells)} | {'' if np.isnan(copies) else f'{100 * copies:.1f} %'} |")
    lines.append(f"| all | oracle | {' | '.join(f'{full[name]:.4f}' for name in SHOWN)} | | | | | | |")
    return "\n".join(lines)


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


def curve(confirmed: pd.DataFrame, full: dict[str, float]) -> Figure:
    """Plot the F1 of the rare classes against their number of images; bands go from the worst to the best subset."""
    figure = Figure(figsize=(6, 4))
    axis = figure.subplots()
    subsets = confirmed.groupby(["method", "count", "subset"], sort=False)["rare_f1"].mean()
    for method in confirmed["method"].unique():
        by_count = subsets[method].groupby("count")
        counts = sorted(by_count.groups)
        (line,) = axis.plot(counts, by_count.mean()[counts], marker="o", label=method)
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
