"""The subcommands that the others' tests do not cover, and a command line without one."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from ddpm.pipeline.console import UserError
from tests.cli.generating import call


@pytest.mark.parametrize("words", [[], ["draw"]])
def test_a_command_line_without_a_subcommand_names_all(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"generate.*balance.*export.*report"):
        call(*words)


def test_report_is_that_of_the_repository_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"scripts/report\.py: "):
        call("report", "fast")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/report.py").touch()
    asked: list[tuple[str, str]] = []
    script = ModuleType("scripts.report")
    monkeypatch.setattr(script, "main", lambda rev, against: asked.append((rev, against)), raising=False)
    monkeypatch.setitem(sys.modules, "scripts.report", script)
    monkeypatch.setattr(sys, "path", [*sys.path])
    call("report", "fast")
    call("report", "fast", "slow")
    assert asked == [("fast", ""), ("fast", "slow")]
