"""What `make repro` says before it begins."""

import json
from pathlib import Path

import pytest

from ddpm.compute.device import start
from ddpm.ingest.fetching import CHECKSUMS
from ddpm.ingest.mnist import CLASSES
from ddpm.pipeline.console import UserError
from ddpm.pipeline.stage import check_place
from scripts.check_params import DownloadParams, environment_note


def test_an_environment_that_is_not_the_recorded_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    monkeypatch.setenv("DDPM_PRECISION", "float32")
    monkeypatch.setenv("DDPM_THREADS", "1")
    recorded = tmp_path / "environment.json"
    assert environment_note(recorded) == ""
    here = start().describe()
    recorded.write_text(json.dumps({**here, "processes": 1}))
    assert environment_note(recorded) == ""
    recorded.write_text(json.dumps({**here, "torch": "2.9.0", "threads": 8}))
    assert environment_note(recorded) == (
        f"note: {recorded} has torch 2.9.0 (here {here['torch']}), threads 8 (here 1): "
        "what is computed anew here may differ by rounding"
    )


def test_a_damaged_record_of_the_environment_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text("{\n<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"environment\.json: not valid JSON"):
        environment_note(tmp_path / "environment.json")


def test_every_known_set_can_be_downloaded() -> None:
    assert DownloadParams.model_validate_json(json.dumps({"sets": [*CHECKSUMS]})).sets == tuple(CHECKSUMS)
    assert DownloadParams.model_validate_json('{"sets": []}').sets == ()
    assert CLASSES.keys() == CHECKSUMS.keys()


@pytest.mark.parametrize("name", ["a{b", "a}", "caf\udcff"])
def test_a_place_that_dvc_cannot_work_in_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(UserError, match="DVC cannot work below a folder with braces or bytes that are not UTF-8"):
        check_place()


@pytest.mark.parametrize("name", ["a [b] *?", "café 'x' $y"])
def test_other_names_are_good(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    check_place()
