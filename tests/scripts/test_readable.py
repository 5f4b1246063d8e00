"""What a merge conflict or a kill leaves of params.yaml and dvc.lock is told with what mends it."""

import json
from pathlib import Path

import pytest

from ddpm.compute.device import start
from exact_stages.console import UserError
from scripts.readable import SETTLE, environment_note, main

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "dvc.lock").read_text()
CONFLICT = "<<<<<<< HEAD\n=======\n>>>>>>> other\n"
MEND = "`git checkout dvc.lock`, then `dvc repro`"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        (LOCK[:2000] + CONFLICT + LOCK[2000:], f"a merge conflict; {SETTLE}"),
        (LOCK[: LOCK.index("md5:") + 8], f"half-written or damaged; {MEND}"),  # valid for DVC
    ],
    ids=["conflict", "valid half"],
)
def test_a_lock_that_cannot_be_used_is_one_line_with_what_mends_it(
    text: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main()
    Path("dvc.lock").write_text(LOCK)
    main()
    Path("dvc.lock").write_text(text)
    with pytest.raises(UserError) as caught:
        main()
    assert str(caught.value) == f"dvc.lock: {fix}"
    Path("params.yaml").write_text(f"data:\n{CONFLICT}")
    with pytest.raises(UserError, match=r"^params\.yaml: line 2: a merge conflict; keep one side"):
        main()
    assert "@python -m scripts.readable\n\tdvc repro" in (ROOT / "Makefile").read_text()


def test_an_environment_that_is_not_the_recorded_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    recorded, here = tmp_path / "environment.json", start().describe()
    recorded.write_text(json.dumps({**here, "processes": 1}))
    assert environment_note(recorded) == ""
    recorded.write_text(json.dumps({**here, "torch": "2.9.0", "MKL_CBWR": "AVX2"}))
    assert f"torch 2.9.0 (here {here['torch']}), MKL_CBWR AVX2 (here None)" in environment_note(recorded)
