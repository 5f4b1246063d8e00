"""The changes of real images whose detection is measured: each does what its name says."""

import pandas as pd
import torch

from studies.scores.run import CHANGES, MELTED
from studies.scores.table import table
from tests.small import images


def test_changes_are_of_the_size_that_they_say() -> None:
    levels, across = images(40), torch.arange(28, dtype=torch.uint8).expand(50, 1, 28, 28)
    changed = {name: (change(levels).int() - levels.int()).abs() for name, change in CHANGES.items()}
    assert changed["noise of one level"].max() == 1
    assert all(each.any() for each in changed.values())
    melted = (CHANGES["melted by up to 3 pixels"](across).int() - across).abs()
    assert 2 <= melted.max() <= MELTED + 1


def test_the_table_takes_its_own_of_rows_of_several_kinds() -> None:
    z = [{"count": 200, "pair": pair, "b.frechet": value} for pair, value in enumerate((3.0, -4.0))]
    faults = [
        {"count": 600, "change": change, "found": found}
        for change, draws in (("blurred", (True, True)), ("melted", (True, False)))
        for found in draws
    ]
    mixes = [
        {"count": 10_000, "mix": mix, "frechet": value} for mix in ("by chance", "of all") for value in (0.01, 0.03)
    ]
    head, of_z, of_faults, of_mix = table(pd.DataFrame([*z, *faults, *mixes]))
    assert head[1:] == ["200", "600", "2,000", "5,000", "10,000"]
    assert of_z[1:] == ["3.54", "", "", "", ""]
    assert of_faults[1:] == ["", "50 %", "", "", ""]
    assert of_mix[1:] == ["", "", "", "", "0.0200 ± 0.0141; 0.0200 ± 0.0141"]
