"""Tables of the study: values that were worked out by hand."""

import pandas as pd
import pytest
from scipy import stats

from studies.rare_class.learning import METHODS
from studies.rare_class.tables import (
    COMPARISONS,
    HERE,
    LINES,
    OVER_ADJUST,
    SUBSETS,
    T_CORRECTED,
    T,
    gains,
    measures,
    shares,
    told,
)
from studies.table import rows_of


def scores() -> pd.DataFrame:
    """Two subsets and seeds; generated images gain 4 and 6 points at 10 images, and at 50 nothing."""
    rows = []
    for subset, gain in ((0, 0.04), (1, 0.06)):
        for seed, chance in ((0, -0.01), (1, 0.01)):
            for method in METHODS:
                base = 0.5 + subset / 10 + chance + (gain if method.extra == "generated" else 0)
                f1 = {"f1_10": base, "f1_50": 0.9 + subset / 100, "f1_250": 0.95}
                rows.append({"subset": subset, **method._asdict(), "seed": seed, "accuracy": 0.8, **f1})
    return pd.DataFrame(rows)


def test_a_gain_is_the_mean_of_paired_differences_of_subsets_with_its_interval() -> None:
    assert measures(scores()) == {"f1_10": "10", "f1_50": "50", "accuracy": "all"}
    table = gains(scores())
    found = table.set_index(["augment", "extra", "images"])
    row = found.loc[("generic", "generated", "10"), :]
    assert row["gain"] == found.loc[("none", OVER_ADJUST, "10"), "gain"] == pytest.approx(5)
    assert row["interval"] == pytest.approx(T)  # its standard error is 1
    assert found.loc[("generic", "generated", "50"), "gain"] == pytest.approx(0)
    assert not table[table["augment"] == "generic"]["sure"].any()


def test_a_gain_is_sure_beyond_its_corrected_interval() -> None:
    assert stats.t.ppf([1 - 0.05 / 2, 1 - 0.05 / COMPARISONS / 2], SUBSETS - 1).round(4).tolist() == [T, T_CORRECTED]
    every = [rows_of(HERE / "rows")[0], *map(pd.read_csv, HERE.glob("results/*/scores.csv"))]
    assert [rows["subset"].nunique() for rows in every] == [SUBSETS] * 3
    table = pd.read_csv(HERE / "gains.csv", keep_default_na=False)
    assert table.groupby("set").size().eq(COMPARISONS).all()
    assert (table["sure"] == (table["gain"].abs() / table["interval"] > T_CORRECTED / T)).all()
    assert 0 < table["sure"].sum() < len(table)


def test_the_table_has_a_line_for_each_comparison_and_marks_what_is_sure() -> None:
    table = gains(scores()).assign(sure=lambda frame: frame["augment"] == "none", gain=1.0, interval=0.5)
    lines = told({"a": table, "b": table.assign(gain=-2.0)})
    assert lines[0] == ["without augmentation", "**+1.0 ± 0.5**", "**-2.0 ± 0.5**"]
    assert lines[3] == ["on top of crops and RandAugment", "+1.0 ± 0.5", "-2.0 ± 0.5"]
    assert len(lines) == len(LINES)


def test_the_fate_of_candidates_is_in_percent() -> None:
    names = ["class", "images", "candidates", "accepted", "filtered", "copies"]
    made = pd.DataFrame([("a", 10, 60, 50, 6, 3), ("b", 10, 40, 30, 8, 4), ("c", 250, 0, 0, 0, 0)], columns=names)
    assert shares(made) == pytest.approx((15, 10))
