"""The subcommand `report`, and a command line that names none."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from exact_stages.console import UserError
from tests.cli.generating import call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("draw", "generate.*balance.*export.*report.*; see ddpm --help"),
        ("generate --classes --count 1", "; see ddpm generate --help"),
        ("report HEAD a b", "; see ddpm report --help"),
    ],
)
def test_a_wrong_command_line_names_all_subcommands_or_the_help_of_its_own(words: str, message: str) -> None:
    with pytest.raises(UserError, match=f"{message}$"):
        call(*words.split())


def test_report_is_that_of_the_repository_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"scripts/report\.py: "):
        call("report", "fast")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/report.py").touch()
    monkeypatch.setitem(sys.modules, "scripts.report", None)  # as if it or a package were missing
    with pytest.raises(UserError, match=r"^ddpm report: needs .*`make report` installs it"):
        call("report", "fast")
    asked: list[tuple[str, str]] = []
    script = ModuleType("scripts.report")
    monkeypatch.setattr(script, "main", lambda rev, against: asked.append((rev, against)), raising=False)
    monkeypatch.setitem(sys.modules, "scripts.report", script)
    monkeypatch.setattr(sys, "path", [*sys.path])
    call("report", "fast")
    call("report", "fast", "slow")
    assert asked == [("fast", ""), ("fast", "slow")]
