"""How params name classes."""

import pytest

from ddpm.data.labels import Classes
from ddpm.runtime.console import UserError
from ddpm.runtime.params import Section, parse


class Chosen(Section):
    classes: Classes


@pytest.mark.parametrize(("value", "classes"), [("all", ()), ([7], (7,)), ([0, 9], (0, 9)), ((3, 1), (3, 1))])
def test_classes_are_all_or_a_list(value: object, classes: tuple[int, ...]) -> None:
    assert parse(Chosen, {"classes": value}, "params.yaml", "train").classes == classes


@pytest.mark.parametrize("value", ["none", "7", 7, None, [], [10], [-1], ["7"], [1.5], [True], {"7": 1}])
def test_other_classes_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: .*\n  train\.classes"):
        parse(Chosen, {"classes": value}, "params.yaml", "train")
