"""Strict loading of params.yaml: every error at once, each named by `section.key`."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ddpm.runtime.console import UserError

DEFAULTS = "params.yaml in the repository's history has the default"


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
    values = read_yaml(path)
    for key in section.split(".") if section else ():
        values = values.get(key) if isinstance(values, dict) else None
        if values is None:
            raise UserError(f"{path}: {section}: missing; add it ({DEFAULTS})")
    return parse(model, values, str(path), section)


def parse(model: type[S], values: Any, source: str, section: str = "") -> S:
    """Check `values` against `model`; `source` and `section` say in the error where they come from."""
    try:
        # By way of JSON, where the strict mode takes a list for a tuple and still no string for a number.
        text = json.dumps(values, default=str)
    except (TypeError, ValueError) as error:  # a list as a key, an anchor inside itself
        raise UserError(f"{source}: not a plain mapping of names to values ({error})") from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        prefix = section.split(".") if section else []
        lines = [_describe(prefix, detail) for detail in error.errors() if not _follows(detail)]
        raise UserError("\n  ".join([f"{source}: {len(lines)} invalid", *lines])) from None


def read_yaml(path: Path) -> Any:
    """Load YAML 1.2, as DVC reads it: 1e-05 is a number, and a key given twice is an error."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this at the top of the repository") from None
    except (YAMLError, UnicodeDecodeError) as error:
        problem, mark = getattr(error, "problem", None) or str(error), getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: not valid YAML: {line}{' '.join(problem.split())}") from None


def _follows(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because items of it, reported themselves, are invalid."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _describe(prefix: list[str], detail: ErrorDetails) -> str:
    """One line: the dotted key, what is wrong, and the value given."""
    location = [str(part) for part in detail["loc"] if not str(part).startswith(("function-", "literal[", "tuple["))]
    where = ".".join([*prefix, *location]) or "the whole file"
    given = "" if isinstance(detail["input"], dict) else f", got {json.dumps(detail['input'])}"
    match detail["type"]:
        case "missing":
            return f"{where}: missing; add it ({DEFAULTS})"
        case "extra_forbidden":
            return f"{where}: unknown key; remove it or mend its spelling"
        case "value_error":
            return f"{where}: {detail['ctx']['error']}{given}"
        case _:
            return f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}{given}"
