"""The data card, how params name its classes, and what the size of images asks for."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from ddpm.images.card import Classes, DataCard, check_class_name, halvings, padded
from exact_stages.console import UserError
from exact_stages.params import Section, load_params, parse


class Chosen(Section):
    classes: Classes


def card(*classes: str) -> DataCard:
    return DataCard(name="set", shape=(1, 8, 8), classes=classes)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("all", (0, 1, 2, 3, 4, 5, 6)),
        ("[7]", (1,)),
        ('["010", "7", 7, 07]', (1, 2)),  # in order, and each once
        ("[yes, on, no]", (3, 4, 6)),  # texts, in YAML 1.2
        ('["1e3"]', (5,)),
        *[(f"[{each}]", None) for each in ("1e3", "true", "~", "[7]", "{a: 1}")],
    ],
)
def test_names_are_found_as_yaml_gives_them(names: str, labels: tuple[int, ...] | None, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"classes: {names}\n")
    if labels is None:
        with pytest.raises(UserError, match=r"classes\.0: .*quotes"):
            load_params(Chosen, path=path)
    else:
        chosen = load_params(Chosen, path=path).classes
        assert card("cat", "7", "010", "no", "on", "1e3", "yes").labels(chosen, "train.classes") == labels


def test_a_name_is_one_in_all_ways_that_unicode_writes_it() -> None:
    ways = ("caf\u00e9", "cafe\u0301")
    for name in ways:
        for asked in ways:
            chosen = parse(Chosen, {"classes": [asked]}, "params.yaml").classes
            assert card("bar", name).labels(chosen, "classes") == (1,)
    with pytest.raises(ValidationError, match="twice"):
        card(*ways)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    for name in ("10", 10, "Cat"):
        with pytest.raises(UserError, match=r"^classes: .*cat, 010"):
            card("cat", "010").labels([name], "classes")


def test_a_card_that_cannot_be_is_refused_by_key() -> None:
    with pytest.raises(UserError, match=r"^file: 2 invalid\n  shape\.0: .*\n  classes\.1: "):
        parse(DataCard, {"name": "set", "shape": [2, 8, 8], "classes": ["b", "c/d"]}, "file")


@pytest.mark.parametrize(
    "name",
    [
        *["", " ", "\t\n", " a", "a ", ".a", "a.", ".."],
        *[f"a{sign}b" for sign in '\\/:*?"<>|'],
        *["a\nb", "a\0", "\x7f", "a\u200bb", "a\u00a0b", os.fsdecode(b"a\xff")],
        *["x" * 101, "x" + "猫" * 85],
        *["all", "ALL"],
    ],
    ids=repr,
)
def test_a_name_that_fits_no_system_is_told_why(name: str) -> None:
    assert check_class_name(name)


def test_what_is_padded_can_be_halved_as_often_as_its_own_size_asks_for() -> None:
    """Also where the padding itself asks for a halving more, as from 35 x 37 to 36 x 40."""
    for height in range(1, 65):
        for width in range(1, 65):
            size = padded(height, width)
            assert size[0] >= height
            assert size[1] >= width
            assert [side % 2 ** halvings(*size) for side in size] == [0, 0], f"{height} x {width} becomes {size}"
