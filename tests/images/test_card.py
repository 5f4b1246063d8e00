"""The data card, and how params name its classes."""

import os
from pathlib import Path

import pytest

from ddpm.images.card import Classes, DataCard, check_class_name, listed
from ddpm.ingest.datasets import CLASSES
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Section, load_params, parse
from tests.small import DIGITS, FRUITS


class Chosen(Section):
    classes: Classes


def card(*classes: str) -> DataCard:
    return DataCard(name="set", shape=(1, 8, 8), classes=classes)


@pytest.mark.parametrize(
    ("value", "classes"),
    [
        ("all", ()),
        ([7], (7,)),
        ([0, 9], (0, 9)),
        ((3, 1), (3, 1)),
        (["7", "all", "apple"], ("7", "all", "apple")),
        ([-1, 10**20, ""], (-1, 10**20, "")),
    ],
)
def test_classes_are_all_or_a_list_of_names(value: object, classes: tuple[str | int, ...]) -> None:
    found = parse(Chosen, {"classes": value}, "params.yaml", "train").classes
    assert found == classes
    assert [*map(type, found)] == [*map(type, classes)]


@pytest.mark.parametrize("value", ["none", "7", "apple", "", 7, True, None, [], {"7": 1}])
def test_what_is_neither_all_nor_a_list_is_refused(value: object) -> None:
    says = r"must be all, or a list of names of classes such as \[7\](, got .*)?$"
    with pytest.raises(UserError, match=rf"^params\.yaml: 1 invalid\n  train\.classes: {says}"):
        parse(Chosen, {"classes": value}, "params.yaml", "train")


@pytest.mark.parametrize("value", [1.5, True, False, None, [7], {"a": 1}])
def test_what_yaml_takes_for_no_name_is_refused_by_its_place(value: object) -> None:
    with pytest.raises(UserError, match=r"train\.classes\.1: is no name to YAML; put it in quotes"):
        parse(Chosen, {"classes": [7, value]}, "params.yaml", "train")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("all", (0, 1, 2, 3, 4, 5, 6)),
        ("[7]", (1,)),
        ('["7", 7, 07]', (1,)),
        ("[010]", (2,)),  # YAML takes it for the number 10
        ("[10]", (2,)),
        ('["010"]', (2,)),
        ("[yes, on, no]", (3, 4, 6)),  # texts, in YAML 1.2
        ("[1e3]", None),
        ('["1e3"]', (5,)),
        ("[true]", None),
        ("[~]", None),
    ],
)
def test_names_are_found_as_yaml_gives_them(names: str, labels: tuple[int, ...] | None, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"classes: {names}\n")
    if labels is None:
        with pytest.raises(UserError, match=r"params\.yaml: 1 invalid\n  classes\.0: is no name to YAML; put it in"):
            load_params(Chosen, path=path)
        return
    chosen = load_params(Chosen, path=path).classes
    assert card("cat", "7", "010", "no", "on", "1e3", "yes").labels(chosen, "train.classes") == labels


def test_labels_are_in_order_and_each_is_there_once() -> None:
    assert DIGITS.labels([7, "3", 7, 0], "classes") == (0, 3, 7)
    assert DIGITS.labels(iter(["9"]), "classes") == (9,)
    assert DIGITS.labels((), "classes") == tuple(range(10))
    assert FRUITS.labels(["pear", "apple"], "classes") == (0, 2)


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (["plum"], "plum"),
        ([7], "7"),
        (["apple", "Apple"], "Apple"),
        (["fig "], "fig "),
        (["a\nb"], r"a\nb"),
        ([""], ""),
    ],
)
def test_an_unknown_class_is_named_beside_those_there_are(names: list[str | int], unknown: str) -> None:
    with pytest.raises(UserError) as caught:
        FRUITS.labels(names, "train.classes")
    assert str(caught.value) == f"train.classes: no class is named {unknown}; choose from apple, fig, pear"


def test_a_quoted_number_is_only_the_name_that_is_written_so() -> None:
    with pytest.raises(UserError, match="no class is named 10; choose from 010, 2"):
        card("010", "2").labels(["10"], "classes")
    with pytest.raises(UserError, match="no class is named -2; choose from 010, 2"):
        card("010", "2").labels([-2], "classes")
    assert card("-2", "2").labels([-2], "classes") == (0,)


def test_a_number_that_may_be_two_classes_is_refused() -> None:
    """YAML has lost the zeros, by which they differ."""
    classes = card("1", "01", "2", "001")
    with pytest.raises(UserError) as caught:
        classes.labels([2, 1], "classes")
    assert str(caught.value) == "classes: 1 may be 1 or 01 or 001; put the name in quotes"
    assert [classes.labels([name], "classes") for name in ("1", "01", "001")] == [(0,), (1,), (3,)]


def test_a_list_of_names_is_one_line_of_at_most_twenty() -> None:
    assert listed(["a", 7]) == "a, 7"
    assert listed(map(str, range(20))) == ", ".join(map(str, range(20)))
    assert listed(range(25)) == ", ".join(map(str, range(20))) + " and 5 more"
    assert listed(["a\nb", "x" * 200]) == rf"a\nb, {'x' * 66}...{'x' * 25}"


@pytest.mark.parametrize("which", [DIGITS, FRUITS])
def test_a_card_comes_back_from_json(which: DataCard) -> None:
    assert parse(DataCard, which.model_dump(mode="json"), "file") == which
    assert which.model_dump(mode="json")["value_range"] == [-1, 1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": [2, 8, 8]}, "shape.0: must be 1, grey, or 3, colour, got 2"),
        ({"shape": [4, 8, 8]}, "shape.0: input should be less than or equal to 3, got 4"),
        ({"shape": [1, 0, 8]}, "shape.1: input should be greater than or equal to 1, got 0"),
        ({"shape": [1, 8, 1025]}, "shape.2: input should be less than or equal to 1024, got 1025"),
        ({"shape": [1, 8]}, "shape.2: missing"),
        ({"classes": []}, "classes: "),
        ({"classes": ["a", "b", "a"]}, "classes: a name stands there twice, got "),
        ({"classes": ["a", ""]}, 'classes.1: is empty, as no name of a class may, got ""'),
        ({"classes": ["a" * 101]}, "classes.0: is longer than 100 characters or 255 bytes, as no name of a class may"),
        ({"classes": ["..", "b"]}, "classes.0: begins or ends with a space or dot, as no name of a class may"),
        ({"classes": ["b", "c/d"]}, "classes.1: has /, which other systems forbid, as no name of a class may"),
        ({"classes": ["All"]}, "classes.0: is reserved, as no name of a class may"),
        ({"classes": ["a\nb"]}, "classes.0: has unprintable characters, or is not valid UTF-8, as no name of"),
        ({"classes": [7]}, "classes.0: input should be a valid string, got 7"),
        ({"classes": [str(each) for each in range(1001)]}, "classes: "),
        ({"name": ""}, "name: "),
        ({"value_range": [0, 1]}, "value_range.0: input should be less than or equal to -1, got 0"),
        ({"more": 1}, "more: unknown key"),
    ],
)
def test_a_card_that_cannot_be_is_refused_by_key(change: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(DataCard, FRUITS.model_dump(mode="json") | change, "file")
    assert str(caught.value).startswith(f"file: 1 invalid\n  {says}")


def test_a_thousand_classes_and_the_largest_images_are_taken() -> None:
    classes = tuple(str(each) for each in range(1000))
    assert DataCard(name="n" * 1000, shape=(3, 1024, 1024), classes=classes).labels([999], "classes") == (999,)


@pytest.mark.parametrize(
    "name",
    ["cat", "0", "a b", "a.b", "überschrift", "猫" * 85, "console", "com", "com10", "allow", "a-b_c(1)", "x" * 100],
)
def test_common_names_may_name_a_class(name: str) -> None:
    assert check_class_name(name) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *[(name, "is empty") for name in ("", " ", "\t\n")],
        *[(name, "begins or ends with a space or dot") for name in (" a", "a ", ".a", "a.", ".", "..", "...")],
        *[(f"a{sign}b", f"has {sign}, which other systems forbid") for sign in '\\/:*?"<>|'],
        *[
            (name, "has unprintable characters, or is not valid UTF-8")
            for name in ("a\nb", "a\0", "\x7f", "a\u200bb", "a\u00a0b", os.fsdecode(b"a\xff"))
        ],
        *[(name, "is longer than 100 characters or 255 bytes") for name in ("x" * 101, "x" + "猫" * 85)],
        *[
            (name, "is reserved")
            for name in ("all", "ALL", "con", "NUL", "Com1", "lpt9", "com²", "aux.txt", "prn .a.b")
        ],
    ],
    ids=repr,
)
def test_a_name_that_fits_no_system_is_told_why(name: str, reason: str) -> None:
    assert check_class_name(name) == reason


@pytest.mark.parametrize("names", CLASSES.values(), ids=[*CLASSES])
def test_the_classes_of_the_sets_that_can_be_fetched_have_names_of_folders(names: tuple[str, ...]) -> None:
    assert [check_class_name(name) for name in names] == [""] * 10
