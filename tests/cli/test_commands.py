"""The subcommand `report`, and a command line that names none."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from ddpm.pipeline.console import UserError
from tests.cli.generating import call


def test_an_unknown_subcommand_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UserError, match=r"generate.*balance.*export.*report"):
        call("draw")


@pytest.mark.parametrize(
    ("words", "named"),
    [("draw", "ddpm"), ("generate --classes --count 1", "ddpm generate"), ("report HEAD a b", "ddpm report")],
)
def test_a_wrong_command_line_names_the_help_of_its_subcommand(words: str, named: str) -> None:
    with pytest.raises(UserError, match=f"; see {named} --help$"):
        call(*words.split())


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
