"""What is compared with what, and which differences may be chance."""

import torch

from ddpm.cli.summary import compared, summary
from ddpm.scoring.scores import Estimate, share_of


def test_a_known_chance_has_no_error() -> None:
    tests = {"samples": Estimate(0.51, 0.004), "baseline": Estimate(0.497, 0.004)}
    rows = {name: each.row("two_sample_accuracy") for name, each in tests.items()} | {"test": {}}
    (found,) = compared(rows)
    assert (found.samples, found.real, round(found.excess, 4), found.error) == (0.51, 0.497, 0.01, 0.004)
    assert "cannot" not in summary(rows)[0].says


def test_all_of_a_hundred_may_be_as_many_as_ninety_five() -> None:
    shares = {"samples": 95, "test": 100}
    rows = {name: share_of(torch.arange(100) < each).row("label_accuracy") for name, each in shares.items()}
    assert summary(rows | {"baseline": {}})[0].says == "their class shows as often as in real images"
    rows["samples"] = share_of(torch.arange(100) < 93).row("label_accuracy")
    assert summary(rows | {"baseline": {}})[0].says == "their class shows less often"
