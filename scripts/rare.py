"""Tables and a plot of the study of rare classes, from the metrics that its experiments keep in docs/.

    python -m scripts.rare docs/rare-choosing
    python -m scripts.rare docs/rare

Of arms that were compared on spare images it prints one table; of those confirmed on test images another, and writes
f1.png beside the metrics. The first arm is the one without a generator that the others are held against.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import t as student

from ddpm.pictures.figures import to_png
from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_whole
from ddpm.study.learning import measures
from scripts.results import read_json

SHOWN = {
    "rare_f1": "F1, rare",
    "rare_recall": "recall, rare",
    "rare_precision": "precision, rare",
    "balanced_accuracy": "balanced accuracy",
    "frequent_accuracy": "accuracy, others",
}


def main(folder: Path) -> None:
    """Print what is there."""
    chosen, confirmed = (rows(folder / "metrics" / f"rare_{stage}") for stage in ("choose", "confirm"))
    if chosen.empty and confirmed.empty:
        raise UserError(f"{folder}: has no metrics of rare_choose or rare_confirm; run `make rare`")
    if not chosen.empty:
        print(choosing_table(chosen))
    if not confirmed.empty:
        full = oracle(folder, confirmed)
        print(confirming_table(confirmed, full))
        write_whole(folder / "f1.png", to_png(curve(confirmed, full)))


def rows(folder: Path) -> pd.DataFrame:
    """A row for each classifier: what it was and what it came to."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        facts = read_json(path)
        count, subset = map(int, path.stem.split("-"))
        rare = [*facts["rare"].values()]
        for arm, each in facts["arms"].items():
            for matrix, traces in zip(each["confusions"], each["traces"], strict=True):
                seen = {name: getattr(measures(torch.tensor(matrix), rare), name) for name in SHOWN}
                copies = (each.get("near_copies") or {}).get("distance")
                name = {"count": count, "subset": subset, "arm": arm}
                found.append({**name, "traces": traces, "copies": copies, "rare": rare, **seen})
    return pd.DataFrame(found)


def oracle(folder: Path, confirmed: pd.DataFrame) -> dict[str, float]:
    """The mean measures of the classifiers that have seen all images."""
    paths = sorted((folder / "metrics/rare_oracle").glob("*.json"))
    if not paths:
        raise UserError(f"{folder}: has no metrics of rare_oracle, which the arms are held against; run `make rare`")
    matrices = [torch.tensor(matrix) for path in paths for matrix in read_json(path)["confusions"]]
    found = [measures(matrix, confirmed["rare"].iloc[0]) for matrix in matrices]
    return {name: float(np.mean([getattr(each, name) for each in found])) for name in SHOWN}


def choosing_table(chosen: pd.DataFrame) -> str:
    """For each count a row for each arm, best first: means over subsets and seeds, and F1 of each subset."""
    lines = [f"| images | arm | {' | '.join(SHOWN.values())} | traces | F1 of each subset |"]
    lines.append("| --- " * (len(SHOWN) + 4) + "|")
    for count, rows_of_count in chosen.groupby("count"):
        means = rows_of_count.groupby("arm")[[*SHOWN, "traces"]].mean().sort_values("rare_f1", ascending=False)
        by_subset = rows_of_count.groupby(["arm", "subset"])["rare_f1"].mean().unstack()
        for arm, row in means.iterrows():
            cells = [str(count), str(arm), *(f"{row[name]:.4f}" for name in SHOWN), f"{row['traces']:.4f}"]
            lines.append(f"| {' | '.join(cells)} | {', '.join(f'{each:.4f}' for each in by_subset.loc[str(arm)])} |")
    return "\n".join(lines)


def confirming_table(confirmed: pd.DataFrame, full: dict[str, float]) -> str:
    """For each count a row for each arm: means over subsets, and how far from the first arm, which has no generator.

    The interval is that of Student's t for the mean of paired differences, a subset being one sample.
    """
    first = confirmed["arm"].iloc[0]
    if "drawn" in first.split("+"):
        raise UserError(
            f"rare_confirm.arms: the others are held against the first, {first}; put one without drawn there"
        )
    subsets = confirmed.groupby(["count", "arm", "subset"])[[*SHOWN, "traces", "copies"]].mean()
    further = ["traces", "F1 gained", "of the way to the oracle", "others gained", "worth", "copies"]
    titles = ["images", "arm", *SHOWN.values(), *further]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for count in sorted(confirmed["count"].unique()):
        base = subsets.loc[count, first]
        for arm in confirmed["arm"].unique():
            each = subsets.loc[count, arm]
            cells = [str(count), arm, *(f"{each[name].mean():.4f}" for name in [*SHOWN, "traces"])]
            if arm == first:
                lines.append(f"| {' | '.join(cells)} | | | | | |")
                continue
            gained = (each["rare_f1"] - base["rare_f1"]).to_numpy()
            left = full["rare_f1"] - base["rare_f1"].mean()
            others = (each["frequent_accuracy"] - base["frequent_accuracy"]).to_numpy()
            way = f"{100 * gained.mean() / left:.0f} %" if left > 0 else ""
            cells += [interval(gained), way, interval(others), worth(confirmed, arm, count)]
            copies = each["copies"].mean() if "drawn" in arm.split("+") else np.nan
            lines.append(f"| {' | '.join(cells)} | {'' if np.isnan(copies) else f'{100 * copies:.1f} %'} |")
    lines.append(f"| all | oracle | {' | '.join(f'{full[name]:.4f}' for name in SHOWN)} | | | | | | |")
    return "\n".join(lines)


def interval(differences: np.ndarray) -> str:
    """The mean of paired differences, and by how much chance may move it, 95 %; without it for a single one."""
    count = len(differences)
    if count == 1:
        return f"{differences.mean():+.4f}"
    error = differences.std(ddof=1) / count**0.5
    return f"{differences.mean():+.4f} ± {student.ppf(0.975, count - 1) * error:.4f}"


def worth(confirmed: pd.DataFrame, arm: str, count: int) -> str:
    """How many real images of a class give the same F1 without a generator, between the counts that were tried.

    Of the subsets that all counts have, linear in the logarithm of the count; beyond the most it is not told.
    """
    counts = confirmed.groupby("subset")["count"].nunique()
    common = confirmed[confirmed["subset"].isin(counts[counts == confirmed["count"].nunique()].index)]
    means = common.groupby(["arm", "count"])["rare_f1"].mean()
    if arm not in means.index.get_level_values("arm"):
        return ""
    base, f1 = means.loc[confirmed["arm"].iloc[0]].cummax(), float(means.loc[arm].loc[count])
    base = base[~base.duplicated()]  # of counts that give the same the least
    if f1 > base.iloc[-1]:
        return f"over {base.index[-1]}"
    if f1 < base.iloc[0]:
        return f"under {base.index[0]}"
    return f"{np.exp(np.interp(f1, base.to_numpy(), np.log(base.index.to_numpy()))):.0f}"


def curve(confirmed: pd.DataFrame, full: dict[str, float]) -> Figure:
    """F1 of the rare classes against how many images of each there are; bands from the worst to the best subset."""
    figure = Figure(figsize=(6, 4))
    axis = figure.subplots()
    subsets = confirmed.groupby(["arm", "count", "subset"], sort=False)["rare_f1"].mean()
    for arm in confirmed["arm"].unique():
        by_count = subsets[arm].groupby("count")
        counts = sorted(by_count.groups)
        (line,) = axis.plot(counts, by_count.mean()[counts], marker="o", label=arm)
        axis.fill_between(counts, by_count.min()[counts], by_count.max()[counts], color=line.get_color(), alpha=0.15)
    axis.axhline(full["rare_f1"], color="black", linestyle=":", label="oracle: all images")
    axis.set(xscale="log", xlabel="real images of each rare class", ylabel="F1 of the rare classes, mean")
    axis.set_xticks(sorted(confirmed["count"].unique()), [str(each) for each in sorted(confirmed["count"].unique())])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m scripts.rare FOLDER")
    run(partial(main, Path(sys.argv[1])))
