"""What a merge conflict or a kill leaves of params.yaml and dvc.lock is told with what mends it."""

from pathlib import Path

import pytest

from exact_stages.console import UserError
from scripts.readable import SETTLE, check_readable

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
    check_readable()
    Path("dvc.lock").write_text(LOCK)
    check_readable()
    Path("dvc.lock").write_text(text)
    with pytest.raises(UserError) as caught:
        check_readable()
    assert str(caught.value) == f"dvc.lock: {fix}"
    Path("params.yaml").write_text(f"data:\n{CONFLICT}")
    with pytest.raises(UserError, match=r"^params\.yaml: line 2: a merge conflict; keep one side"):
        check_readable()
    assert "@python -m scripts.readable\n\tdvc repro" in (ROOT / "Makefile").read_text()
