"""Tables of the study: values that were worked out by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from exact_stages.console import UserError
from studies.rare_class.learning import METHODS
from studies.rare_class.tables import OVER_ADJUST, complete, copied, filled, gains, holm, means, measures, told


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
    found = gains(scores()).set_index(["augment", "extra", "images"])
    row = found.loc[("generic", "generated", "10"), :]
    assert row["gain"] == found.loc[("none", OVER_ADJUST, "10"), "gain"] == pytest.approx(5)
    assert row["interval"] == pytest.approx(12.706, abs=0.001)  # a standard error of 1, times the quantile of t
    assert found.loc[("generic", "generated", "50"), "gain"] == pytest.approx(0)
    assert not found["sure"].any()


def test_unfinished_rows_are_refused(tmp_path: Path) -> None:
    path, rows = tmp_path / "scores.csv", scores()
    rows.to_csv(path, index=False)
    assert len(complete(path)) == len(rows)
    rows.iloc[:-1].to_csv(path, index=False)
    with pytest.raises(UserError, match=f"{path}: has {len(rows) - 1} of {len(rows)} rows"):
        complete(path)


def test_holm() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


def test_tables_have_a_row_for_each_method() -> None:
    assert len(means(scores())) == len(METHODS)
    assert means(scores()).iloc[-1].tolist() == ["oversample + expert + real", 55.0, 90.5, 80.0]
    table = gains(scores()).assign(sure=lambda frame: frame["images"] == "10")
    assert told(table).set_index("method").loc["none + generated", "10"] == "**+5.0 ± 12.7**"
    assert told(table).set_index("method").loc["generic + real", "50"] == "+0.0 ± 0.0"


def test_the_fate_of_candidates_is_in_percent() -> None:
    names = ["class", "images", "candidates", "accepted", "filtered", "copies"]
    made = pd.DataFrame([("a", 10, 60, 50, 5, 5), ("b", 10, 40, 30, 5, 5), ("c", 250, 0, 0, 0, 0)], columns=names)
    assert filled(made).to_numpy().tolist() == [[10, 79.2, 10.4, 10.4]]
    assert copied(made).to_numpy().tolist() == [["a", 8.3], ["b", 12.5]]
