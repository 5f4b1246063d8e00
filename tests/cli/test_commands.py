"""A command line that names no subcommand, or a wrong option."""

import pytest

from exact_stages.console import UserError
from tests.cli.generating import call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("draw", "generate.*balance.*export.*; see ddpm --help"),
        ("generate --classes --count 1", "; see ddpm generate --help"),
    ],
)
def test_a_wrong_command_line_names_all_subcommands_or_the_help_of_its_own(words: str, message: str) -> None:
    with pytest.raises(UserError, match=f"{message}$"):
        call(*words.split())
