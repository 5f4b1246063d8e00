"""What `make repro` says before it begins: whatever is wrong between sections, and how this machine differs."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from ddpm.compute.device import start
from ddpm.ingest.fetching import CHECKSUMS
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import parse
from scripts.check_params import AllParams, KnownSet, environment_note, main, spanning_errors
from tests.pipeline.test_params import changed

ROOT = Path(__file__).parents[2]
SHORT = [("schedule.timesteps", 20), ("forward_diffusion.timesteps", [0]), ("sample.population.steps", None)]
PLAIN = [("sample.gallery.guidance", 1), ("sample.population.guidance", 1)]
UNLABELLED = [("sample.gallery.guide", "classifier_free"), ("sample.population.guidance", 1)]
GUIDED = [("sample.gallery.guidance", 1.3), ("sample.population.guidance", 1.3)]
DISTILLED = [("sample.model", "models/distilled-4.safetensors"), ("distill.steps", [4])]
ANCESTRAL = [("sample.population.sampler", "ddpm"), ("sample.population.steps", None)]


def test_the_params_of_the_repository_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["check_params"])
    main()


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ([("forward_diffusion.timesteps", [0, 1000])], ["forward_diffusion.timesteps"]),
        ([*SHORT, ("distill.steps", [20])], []),
        ([*SHORT, ("distill.steps", [21])], ["distill.steps"]),
        ([("sample.gallery.steps", 1001)], ["sample.gallery.steps"]),
        ([("sample.gallery.keep_every", 0)], ["sample.gallery.keep_every"]),
        ([("sample.population.count", 5)], ["sample.population.count"]),
        ([("data.set", "data/fashion_mnist")], ["data.set"]),
        ([("data.set", "data/mine")], []),
        ([("train.start", "models/ddpm.safetensors")], ["train.start"]),
        ([("train.guide_share", 0)], []),
        ([("train.guide_share", 0), *GUIDED], ["sample.gallery.guidance", "sample.population.guidance"]),
        ([("train.guide_share", 0), *PLAIN], []),
        ([*GUIDED, *UNLABELLED], ["sample.gallery.guidance"]),
        ([*GUIDED, *UNLABELLED, ("train.label_dropout", 0.1)], []),
        ([("model.class_conditional", False), *GUIDED, *UNLABELLED], ["sample.gallery.guidance"]),
        ([("model.class_conditional", False), ("train.label_dropout", 0.1)], ["train.label_dropout"]),
        ([("model.class_conditional", False), ("sample.gallery.classes", [7])], ["sample.gallery.classes"]),
        ([("train.classes", [1, 7]), ("sample.gallery.classes", [3, 7])], ["sample.gallery.classes"]),
        ([("train.classes", ["7"]), ("sample.gallery.classes", [7])], []),
        ([("sample.model", "data/other.safetensors"), ("train.guide_share", 0), *GUIDED], []),
        ([DISTILLED[0], *PLAIN], ["sample.model"]),
        ([*DISTILLED, *PLAIN], ["sample.population.sampler"]),
        ([*DISTILLED, *ANCESTRAL, *GUIDED], ["sample.gallery.guidance", "sample.population.guidance"]),
        ([*DISTILLED, *ANCESTRAL], []),
        (
            [("data.set", "data/fashion_mnist"), ("sample.gallery.steps", 1001), ("train.guide_share", 0), *GUIDED],
            ["data.set", "sample.gallery.steps", "sample.gallery.guidance", "sample.population.guidance"],
        ),
    ],
)
def test_what_sections_contradict_is_named(changes: list[tuple[str, Any]], keys: list[str]) -> None:
    params = parse(AllParams, changed(*changes), "here")
    assert [error.partition(": ")[0] for error in spanning_errors(params)] == keys


def test_errors_end_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(changed(("sample.gallery.keep_every", 0))))
    monkeypatch.setattr("sys.argv", ["check_params", str(tmp_path / "params.yaml")])
    with pytest.raises(UserError, match=r"params\.yaml: 1 invalid\n  sample\.gallery\.keep_every: "):
        main()


def test_every_known_set_can_be_downloaded() -> None:
    assert {*get_args(KnownSet)} == CHECKSUMS.keys()


def test_an_environment_that_is_not_the_recorded_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    monkeypatch.setenv("DDPM_THREADS", "1")
    recorded = tmp_path / "environment.json"
    assert environment_note(recorded) == ""
    here = start().describe()
    recorded.write_text(json.dumps({**here, "processes": 1}))
    assert environment_note(recorded) == ""
    recorded.write_text(json.dumps({**here, "torch": "2.9.0", "threads": 8}))
    assert f"torch 2.9.0 (here {here['torch']}), threads 8 (here 1)" in environment_note(recorded)
