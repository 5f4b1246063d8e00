"""What is said before anything runs: whatever is wrong in params.yaml, between sections, too."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ddpm.params.rules import AllParams, spanning_errors
from exact_stages.console import UserError
from exact_stages.files import read_yaml
from exact_stages.params import parse
from exact_stages.stage import Stage
from stages.check import CHECKED, main, missing_set

ROOT = Path(__file__).parents[2]
SHORT = [("schedule.timesteps", 20), ("sample.scored.steps", None)]
UNLABELLED = [("sample.guide", "classifier_free"), ("sample.guidance", 1.3)]
DISTILLED = [("sample.model", "models/distilled-4.safetensors"), ("distill.steps", [4])]
ANCESTRAL = [("sample.scored.sampler", "ddpm"), ("sample.scored.steps", None)]


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(read_yaml(ROOT / "params.yaml"))
    for dotted, value in changes:
        *sections, key = dotted.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[key] = value
    return values


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.background", "witte"), ("train.classes", "7"), ("train.classes", [{"7": 1}]), ("sample.preview.typo", 1)],
)
def test_a_wrong_value_is_named_in_one_line(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^here: 1 invalid\n  {key}[^\n]*$"):
        parse(AllParams, changed((key, value)), "here")


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ([], []),
        ([*SHORT, ("distill.steps", [20])], []),
        ([*SHORT, ("distill.steps", [21])], ["distill.steps"]),
        ([("sample.preview.steps", 1001)], ["sample.preview.steps"]),
        ([("sample.preview.keep_every", 1), ("sample.preview.count", 1001)], ["sample.preview.keep_every"]),
        ([("train.fine_tune_from", "models/ddpm.safetensors")], ["train.fine_tune_from"]),
        ([("train.guide_share", 0), ("sample.guidance", 1.3)], ["sample.guidance"]),
        (UNLABELLED, ["sample.guidance"]),
        ([*UNLABELLED, ("train.label_dropout", 0.1)], []),
        ([("model.class_conditional", False), ("train.label_dropout", 0.1)], ["train.label_dropout"]),
        ([("model.class_conditional", False), ("sample.classes", [7])], ["sample.classes"]),
        ([("train.classes", [1, 7]), ("sample.classes", [3, 7])], ["sample.classes"]),
        ([("sample.model", "data/other.safetensors"), ("train.guide_share", 0), ("sample.guidance", 1.3)], []),
        (DISTILLED[:1], ["sample.model"]),
        (DISTILLED, ["sample.scored.sampler"]),
        ([*DISTILLED, *ANCESTRAL, ("sample.guidance", 1.3)], ["sample.guidance"]),
        ([*DISTILLED, *ANCESTRAL], []),
        (
            [("sample.preview.steps", 1001), ("train.fine_tune_from", "models/ddpm.safetensors"), *DISTILLED[:1]],
            ["train.fine_tune_from", "sample.model"],  # the set's steps are checked when there is such a model
        ),
    ],
)
def test_what_sections_contradict_is_named(changes: list[tuple[str, Any]], keys: list[str]) -> None:
    params = parse(AllParams, changed(*changes), "here")
    assert [error.partition(": ")[0] for error in spanning_errors(params)] == keys


def test_a_set_that_is_not_there_is_refused_unless_a_stage_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {unpack: {cmd: x, outs: [data/mine]}}")
    monkeypatch.chdir(tmp_path)
    for name in ("data/mine", "data/mine/", str(tmp_path)):
        assert not [*missing_set(name)]
    assert [error.partition("; ")[0] for error in missing_set("data/other")] == [
        "data.set: data/other: no such folder or file"
    ]


def test_errors_end_the_stage_without_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(changed(("sample.preview.keep_every", 0))))
    (tmp_path / "data/mnist").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml: 1 invalid\n  sample\.preview\.keep_every: "):
        main(Stage("check"))
    assert not CHECKED.exists()
