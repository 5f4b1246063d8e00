"""Define the subcommands of `ddpm`, and read the command line."""

from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict, SettingsError, get_subcommand

from ddpm.cli.balance import Balance
from ddpm.cli.export import Export
from ddpm.cli.generate import Generate
from ddpm.cli.options import Options
from ddpm.cli.prove import Prove
from ddpm.cli.score import Score
from exact_stages.console import UserError, shown


class Ddpm(BaseSettings):
    """Sample from a trained diffusion model, score samples, balance a set of images, export, prove."""

    model_config = SettingsConfigDict(
        env_prefix="DDPM_COMMAND_",  # so that environment variables set no options
        cli_prog_name="ddpm",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
        use_attribute_docstrings=True,
    )

    generate: CliSubCommand[Generate]
    """sample images from a trained model"""
    score: CliSubCommand[Score]
    """score samples of any generator against real images"""
    balance: CliSubCommand[Balance]
    """fill the rare classes of a set with samples"""
    export: CliSubCommand[Export]
    """write a model as ONNX"""
    prove: CliSubCommand[Prove]
    """check what made a model file, or build it again"""


def read(words: list[str]) -> Options:
    """Parse a command line into the options of its subcommand.

    Raises:
        UserError: an option is unknown, missing or out of its range; the message names it.
    """
    try:
        command = get_subcommand(CliApp.run(Ddpm, cli_args=words))
    except SettingsError as error:
        named = f"ddpm {words[0]}" if words[0] in Ddpm.model_fields else "ddpm"
        raise UserError(f"{shown(str(error).removeprefix('error parsing CLI: '))}; see {named} --help") from None
    except ValidationError as error:
        raise UserError("; ".join(_line(each) for each in error.errors())) from None
    assert isinstance(command, Options)
    return command


def _line(detail: Any) -> str:
    """Describe in one line what is wrong with an option."""
    command, name, *_ = map(str, detail["loc"])
    given = "" if detail["type"] == "missing" else f", got {shown(str(detail['input']), 100)}"
    return f"ddpm {command}: --{name.replace('_', '-')}: {detail['msg'].lower()}{given}"
