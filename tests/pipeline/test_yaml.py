"""What is read is what DVC records, type for type: YAML 1.2, by DVC's own reader."""

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml

from ddpm.pipeline.params import read_yaml

FORMS: list[tuple[Any, str]] = [
    (True, "true True TRUE"),
    (None, "null ~"),
    (10, "10 010 0o12 0b1010 0xa 1_0"),
    (1e-05, "1e-05 1e-5 1.0e-05 0.00001"),
    (2**64, "18446744073709551616"),
    (float("inf"), ".inf"),
]
WORDS = "yes no on off y n 12:30 190:20:30.15 1.2.3 1e e5"
SCALARS = [(text, value) for value, texts in FORMS for text in texts.split()] + [(text, text) for text in WORDS.split()]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_those_of_yaml_1_2_and_of_dvc(text: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"a: {text}\nb: [{text}]\n")
    found = read_yaml(path)
    assert repr(found) == repr({"a": value, "b": [value]}) == repr(dict(parse_yaml(path.read_text(), "params.yaml")))


MERGES = "base: &base {lr: 1, seed: 2}\nother: &other {lr: 3}\n"


@pytest.mark.parametrize("merge", ["{<<: *base, lr: 5}", "{<<: [*other, *base]}", "{<<: *other, seed: 1e-3}"])
def test_merge_keys_are_those_of_dvc(merge: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"{MERGES}train: {merge}\n")
    found = read_yaml(path)["train"]
    assert repr(dict(found)) == repr(dict(parse_yaml(path.read_text(), "params.yaml")["train"]))
    assert found["lr"] in (5, 3)
