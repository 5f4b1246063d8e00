"""Strict loading of params.yaml: every error at once, each named by `section.key`."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from ddpm.pipeline.console import UserError, shown

MAX_PARAMS = 1 << 16  # characters; ours has some thousands
MAX_YAML = 1 << 24  # a dvc.lock of thousands of stages
MAX_ALIASED = 16  # times its length: a few lines of aliases may stand for gigabytes
MAX_LINES = 50  # of errors in one message
DEFAULTS = "params.yaml in the repository's history has the default"
FORMER = {"data.size": "data.image_size"}  # what params were called before


class Section(BaseModel):
    """Base of the typed params sections: immutable, no unknown keys, no silent conversions, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Sections(BaseModel):
    """Base of a stage's `Params`: its fields are the sections of params.yaml that the stage reads, and no others."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


S = TypeVar("S", bound=BaseModel)


def load_params(model: type[S], section: str = "", path: Path = Path("params.yaml")) -> S:
    """Read and check the params that `model` describes.

    Args:
        model: a `Sections` model for the whole file, or the `Section` model of the one named by `section`.
        section: dotted path of that section, such as "sample.gallery".

    Raises:
        UserError: the file cannot be read, or values are wrong; the message has a line for each of them.
    """
    values = read_yaml(path, MAX_PARAMS)
    for key in section.split(".") if section else ():
        values = values.get(key) if isinstance(values, dict) else None
        if values is None:
            raise UserError(f"{path}: {section}: missing; add it ({DEFAULTS})")
    return parse(model, values, str(path), section)


def parse(model: type[S], values: Any, source: str, section: str = "") -> S:
    """Check `values` against `model`; `source` and `section` say in the error where they come from."""
    try:
        # By way of JSON, where the strict mode takes a list for a tuple and still no string for a number.
        text = json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:  # a date, a list as a key, a list in itself
        raise UserError(f"{source}: not a plain mapping of names to values ({shown(str(error))})") from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        prefix = section.split(".") if section else []
        details = [detail for detail in error.errors(include_url=False) if not _follows(detail)]
        lines = [_describe(prefix, detail) for detail in details[:MAX_LINES]]
        if more := len(details) - len(lines):
            lines.append(f"and {more} more")
        raise UserError("\n  ".join([f"{source}: {len(details)} invalid", *lines])) from None


def read_yaml(path: Path, limit: int = MAX_YAML) -> Any:
    """Load YAML 1.2, as DVC reads it: 1e-05 is a number, and a key given twice is an error.

    Raises:
        UserError: it is no regular file, not readable, longer than `limit` characters, in conflict, or no such YAML.
    """
    text = _read(path, limit)
    if len(text) > limit:
        raise UserError(f"{path}: larger than {limit >> 10} KiB; put the right file in its place")
    if conflict := re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        mend = "keep one side of it, and delete the lines of <<<<<<<, ======= and >>>>>>>"
        raise UserError(f"{path}: line {line}: a merge conflict of git; {mend}")
    try:
        return _load(text)
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None


def _load(text: str) -> Any:
    """One document, read as DVC reads it: what a stage runs on is then what DVC records.

    Raises:
        ValueError: it is none; one line says why.
    """
    reader = YAML(typ="safe", pure=True)
    try:
        node = reader.compose(text)
        if node and _size(node, {}) > MAX_ALIASED * len(text) + MAX_PARAMS:
            raise ValueError("its aliases stand for too much; write fewer of them")
        return reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ValueError(f"line {mark.line + 1}: {shown(str(error.problem or error.context))}") from None
    except RecursionError:
        raise ValueError("nested too deep, or within itself; make it flatter") from None
    except Exception as error:  # of dates that are none, of integers of a thousand digits, ...
        raise ValueError(shown(str(error) or type(error).__name__)) from None


def _size(node: Node, sizes: dict[int, int]) -> int:
    """How long the text of a node is, with the text of what its aliases stand for."""
    if id(node) not in sizes:
        inner: list[Node] = []
        if isinstance(node, MappingNode):
            inner = [each for pair in node.value for each in pair]
        elif isinstance(node, SequenceNode):
            inner = node.value
        own = 1 if inner else 1 + len(node.value)
        sizes[id(node)] = own + sum(_size(each, sizes) for each in inner)
    return sizes[id(node)]


def _read(path: Path, limit: int) -> str:
    """At most one character more than `limit`, so that no file takes much memory."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe would be to wait for someone to write to it
            raise UserError(f"{path}: not a regular file; put one in its place")
        with path.open(encoding="utf-8") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        mend = f"its link leads to {path.readlink()}" if path.is_symlink() else "run this at the top of the repository"
        raise UserError(f"{path}: no such file; {mend}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid YAML: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        mend = "mend its permissions, or put it anew"
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; {mend}") from None


def _follows(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because items of it, reported themselves, are invalid."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _describe(prefix: list[str], detail: ErrorDetails) -> str:
    """One line: the dotted key, what is wrong, and the value given."""
    location = [str(part) for part in detail["loc"] if not str(part).startswith(("function-", "literal[", "tuple["))]
    where = shown(".".join([*prefix, *location]), 200) or "the whole file"
    shows = not isinstance(detail["input"], dict) and detail["type"] != "json_invalid"  # whose input is everything
    given = f", got {shown(json.dumps(detail['input']), 100)}" if shows else ""
    match detail["type"]:
        case "missing":
            return f"{where}: missing; add it ({DEFAULTS})"
        case "extra_forbidden" if where in FORMER:
            return f"{where}: is called {FORMER[where]} now; rename it"
        case "extra_forbidden":
            return f"{where}: unknown key; remove it or mend its spelling"
        case "value_error":
            return f"{where}: {shown(str(detail['ctx']['error']))}{given}"
        case _:
            return f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}{given}"
