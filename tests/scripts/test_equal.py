"""The last lines of `make repro`: stages of another precision, and whether the model is the committed one."""

import json
from pathlib import Path

import pytest
import torch

from ddpm.images.arrays import save_arrays
from exact_stages.files import md5
from scripts import equal
from tests.with_dvc.dvc_clone import Clone, identify

MODEL, FORCE = "models/ddpm.safetensors", "`dvc repro --force` makes all stages again"


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def made(train: str, evaluate: str, model: str | None = None, torch: str = "2") -> None:
    """A run whose stages were made in these precisions; None keeps the model as it is."""
    write("metrics/train/environment.json", json.dumps({"torch": torch, "precision": train}))
    write("metrics/evaluate/scores.json", json.dumps({"b": {"precision": 0.9}, "made_in": evaluate}))
    outs = f"[{{path: {MODEL}, md5: {md5(write(MODEL, model) if model else Path(MODEL))}}}]"
    write("dvc.lock", f"stages: {{train: {{deps: [], outs: {outs}}}}}")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Returns what is said after a run, beside a commit in portable mode."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DDPM_PRECISION", raising=False)
    write("code/train.txt", "")
    made("portable", "portable", "portable bytes")
    clone = Clone(tmp_path)
    clone.git("init", "--quiet")
    identify(clone)
    clone.commit()

    def said(precision: str = "") -> list[str]:
        monkeypatch.setenv("DDPM_PRECISION", precision)
        equal.main()
        return capsys.readouterr().out.splitlines()[1:]

    return said


def test_a_run_in_another_precision_differs_as_expected(said) -> None:  # type: ignore[no-untyped-def]
    assert said() == [f"{MODEL}: equal to the committed one, byte for byte"]
    made("bfloat16", "bfloat16", "other bytes")
    other = f"{MODEL}: not the committed bytes, as expected: made in bfloat16, the committed one in portable mode."
    assert said() == [f"{other} `ddpm prove --rebuild {MODEL}` makes those, in about twice the time."]
    made("portable", "portable", "other bytes")
    assert said() == [f"{MODEL}: not the committed one; what differs: nothing that is recorded"]


def test_a_model_that_only_names_another_torch_is_told_from_one_with_other_weights(said) -> None:  # type: ignore[no-untyped-def]
    save_arrays(Path(MODEL), {"w": torch.zeros(2)}, {"environment": {"torch": "2"}})
    made("portable", "portable")
    Clone(Path()).commit()
    for weight, ending in (
        (0, "equal to the committed one, but it names torch 3, not 2"),
        (1, "not the committed one; what differs: torch"),
    ):
        save_arrays(Path(MODEL), {"w": torch.full((2,), float(weight))}, {"environment": {"torch": "3"}})
        made("portable", "portable", torch="3")
        assert said() == [f"{MODEL}: {ending}"]


def test_stages_that_dvc_left_in_another_precision_are_named(said) -> None:  # type: ignore[no-untyped-def]
    made("bfloat16", "bfloat16", "other bytes")
    left = f"up to date, but made in bfloat16, not portable; {FORCE}"
    assert said("portable")[0] == f"evaluate, train: {left}"
    made("portable", "bfloat16", "portable bytes")
    assert said()[0] == said("portable")[0] == f"evaluate: {left}"
    made("portable", "portable", "portable bytes")
    assert len(said("portable")) == 1
