"""Tables of the commands: the subcommands of `ddpm`, the targets of the Makefile, and the scripts."""

import argparse
import ast
import re
from pathlib import Path
from textwrap import fill

from pydantic_settings import CliSettingsSource

from ddpm.cli.commands import Ddpm
from ddpm.cli.options import DEFAULTS
from scripts.documenting.parameters import table

KINDS = {"Path": "path", "str": "name", "int": "integer", "float": "number", "tuple[float,float]": "two numbers"}
HEAD = ["option", "value", "default", "meaning"]
SHARED = {f"--{name.replace('_', '-')}" for name in DEFAULTS}  # the sampler's options


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each subcommand of `ddpm`."""
    parser: argparse.ArgumentParser = CliSettingsSource(Ddpm).root_parser
    (found,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return found.choices


def command_tables() -> str:
    """Return the description and the options of each subcommand; those of the sampler in a table of their own."""
    parts: list[str] = []
    samplers: list[argparse.Action] = []
    for name, parser in subcommands().items():
        options = [each for each in parser._actions if each.dest != "help"]
        shared = [each for each in options if SHARED & {*each.option_strings}]
        shared = shared if len(shared) == len(SHARED) else []
        own = [_row(each) for each in options if each not in shared]
        more = "\n\nIt takes [the sampler's options](#sampler-options) too." if shared else ""
        parts.append(f"### ddpm {name}\n\n{_wrapped(_marked(parser.description or ''))}\n\n{table([HEAD, *own])}{more}")
        samplers = shared or samplers
    parts.append(f"### Sampler options\n\n{table([HEAD, *map(_row, samplers)])}")
    return "\n\n".join(parts)


def _row(option: argparse.Action) -> list[str]:
    name = ", ".join(f"`{each}`" for each in option.option_strings) or f"`{option.metavar}`"
    said = option.help or ""
    kind, default = str(option.metavar or ""), "required" if said.endswith(" (required)") else ""
    if found := re.search(r" \(default: (.*)\)$", said):
        default = {"": "", "null": "", "True": "on", "False": "off"}.get(found[1], f"`{found[1]}`")
    said = _marked(re.sub(r" \((required|default: .*)\)$", "", said))
    if kind.startswith("{"):
        kind = ", ".join(f"`{each}`" for each in kind[1:-1].split(","))
    elif "classes" in option.dest:
        kind = "names"
    return [name, KINDS.get(kind, kind) if option.option_strings else "text", default, said]


def _marked(text: str) -> str:
    """Mark the options and placeholders of a docstring as code, outside of what is code already."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"(--[a-z][a-z-]*(?:=\S+)?|\S*<\w+>)", r"`\1`", part) for part in parts[::2]]
    return "`".join(parts)


def _wrapped(text: str) -> str:
    """Wrap paragraphs at 100 columns, but not within code."""
    closed = re.sub(r"`[^`]+`", lambda match: re.sub(r"\s+", "\0", match[0]), text)
    return "\n\n".join(fill(each, 100, break_on_hyphens=False) for each in closed.split("\n\n")).replace("\0", " ")


def targets(makefile: str) -> dict[str, dict[str, str]]:
    """Return the targets that `make help` shows, with their texts, by heading."""
    found: dict[str, dict[str, str]] = {}
    heading = "List"
    for line in makefile.splitlines():
        if line.startswith("##@ "):
            heading = line[4:].strip()
        elif match := re.match(r"([a-z]+):.*?## (.*)", line):
            found.setdefault(heading, {})[match[1]] = match[2]
    return found


def target_table() -> str:
    """Return a table of the Makefile's targets for each heading."""
    groups = targets(Path("Makefile").read_text())
    return "\n\n".join(
        f"### {heading}\n\n" + table([["target", "what it does"], *([f"`make {name}`", each[name]] for name in each)])
        for heading, each in groups.items()
    )


def script_table() -> str:
    """Return the table of the benchmarks, with the first line of their docstrings."""
    rows = []
    for path in sorted(Path("benchmarks").glob("*.py")):
        text = path.read_text()
        if '__name__ == "__main__"' in text:
            first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
            rows.append([f"`python -m {path.with_suffix('').as_posix().replace('/', '.')}`", first])
    return table([["module", "what it does"], *rows])
