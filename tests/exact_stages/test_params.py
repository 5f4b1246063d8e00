"""Params are read as DVC reads them, and every wrong one is named by `section.key`."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import AfterValidator, Field

from exact_stages.console import UserError
from exact_stages.files import read_yaml
from exact_stages.params import Section, Sections, load_params, parse


def even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


class Recipe(Section):
    lr: float = 0.1
    steps: Annotated[int, AfterValidator(even)]


class Train(Section):
    names: Annotated[tuple[str, ...], Field(min_length=1)]
    recipe: Recipe


class Params(Sections):
    train: Train


TEXT = "train: {names: [no, 12:30], recipe: {lr: 5e-1, steps: 4}}\nother: 1\n"  # as DVC reads it, by YAML 1.2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    return path


def test_a_section_is_loaded_by_its_dotted_name(path: Path) -> None:
    recipe = Recipe(lr=0.5, steps=4)
    assert load_params(Params, path=path).train == Train(names=("no", "12:30"), recipe=recipe)
    assert load_params(Recipe, "train.recipe", path) == recipe
    for missing in ("train.copy", "test", "train.names.deeper"):
        with pytest.raises(UserError, match=f": {missing}: missing"):
            load_params(Recipe, missing, path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5e-1", "'0.5'", r'train\.recipe\.lr: input should be a valid number, got "0\.5"'),
        ("5e-1", ".inf", r"train\.recipe\.lr: .*, got Infinity"),
        ("lr: 5e-1, ", "", r"train\.recipe\.lr: missing; add it \(.*\)"),  # although the model has a default
        ("steps: 4", "", r"train\.recipe\.steps: missing; add it \(.*\)"),
        ("steps: 4", "steps: 3", r"train\.recipe\.steps: must be even, got 3"),
        ("steps: 4", "steps: 4, speed: 1", r"train\.recipe\.speed: unknown key; .*CHANGELOG\.md.*"),
        ("[no, 12:30]", "a", r'train\.names: must be a list, in brackets, got "a"'),
        ("[no, 12:30]", "[]", r"train\.names: tuple should have at least 1 item .*, got \[\]"),
        ("[no, 12:30]", "[7]", r"train\.names\.0: input should be a valid string, got 7"),  # and not that none is left
        (TEXT, "- 1\n", r"the whole file: .*, got \[1\]"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(old: str, new: str, message: str, path: Path) -> None:
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError, match=rf"^{path}: 1 invalid\n  {message}$"):
        load_params(Params, path=path)


def test_all_wrong_values_are_told_together(path: Path) -> None:
    path.write_text("train: {names: 7, recipe: {}}")
    with pytest.raises(UserError) as caught:
        load_params(Params, path=path)
    first, *lines = str(caught.value).split("\n  ")
    assert first == f"{path}: 3 invalid"
    assert {line.split(": ")[0] for line in lines} == {"train.names", "train.recipe.lr", "train.recipe.steps"}


def test_what_is_no_file_of_params_may_leave_out_what_has_a_default() -> None:
    assert parse(Recipe, {"steps": 2}, "model.safetensors") == Recipe(steps=2)
    with pytest.raises(UserError, match=r"^model\.safetensors: 1 invalid\n  recipe\.steps: missing"):
        parse(Recipe, {}, "model.safetensors", "recipe")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: [1\n", "line 2"),
        (b"train: \xff\n", "UTF-8"),
        (b"x: 2024-13-45\n", "YAML"),
        (b"a: 1\nb: \0\n", "YAML"),
        (b"train: {}\ntrain: {}\n", 'line 2: found duplicate key "train"'),
        (b"a:\n<<<<<<< HEAD\n  b: 1\n=======\n  b: 2\n>>>>>>> other\n", "line 2: a merge conflict"),
        (None, "no such file"),
    ],
)
def test_a_poor_file_ends_in_one_line(content: bytes | None, message: str, path: Path) -> None:
    path.write_bytes(content) if content else path.unlink()
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
