"""Load params.yaml strictly, and report all errors at once, each by its `section.key`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from exact_stages.console import UserError, shown
from exact_stages.files import read_yaml

MISSING = "missing; add it (params.yaml in the repository's history has the default)"
UNKNOWN = "unknown key; remove it or correct its spelling (CHANGELOG.md, if there is one, names removed keys)"


class Section(BaseModel):
    """Base class of params sections: immutable, no unknown keys, no silent conversions, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Sections(BaseModel):
    """Base class of what a stage asks `Stage.params` for: one field for each section of params.yaml that it reads."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


S = TypeVar("S", bound=BaseModel)


def load_params(model: type[S], section: str = "", path: Path = Path("params.yaml")) -> S:
    """Read and validate the params that `model` describes; each key must be there, even if the model has a default.

    Args:
        model: a `Sections` model for the whole file, or a `Section` model for one section.
        section: the dotted path of that section, such as "report.tables".

    Raises:
        UserError: the file cannot be read or values are invalid; the message has one line for each value.
    """
    values = read_yaml(path)
    for key in section.split(".") if section else ():
        values = values.get(key) if isinstance(values, dict) else None
        if values is None:
            raise UserError(f"{path}: {section}: {MISSING}")
    return parse(model, values, str(path), section, complete=True)


def parse(model: type[S], values: Any, source: str, section: str = "", complete: bool = False) -> S:
    """Validate `values` against `model`; errors name `source` and `section`.

    Args:
        complete: whether keys that have a default must be there, too.
    """
    prefix = section.split(".") if section else []
    lines = [f"{'.'.join([*prefix, *key])}: {MISSING}" for key in _defaults(model, values)] if complete else []
    # From JSON, strict mode accepts a list as a tuple, but no string as a number. Dates become strings.
    text = json.dumps(values, default=str)
    try:
        found = model.model_validate_json(text)
    except ValidationError as error:
        lines += [_describe(prefix, detail) for detail in error.errors(include_url=False) if not _is_derived(detail)]
    if lines:
        raise UserError("\n  ".join([f"{source}: {len(lines)} invalid", *lines]))
    return found


def _defaults(model: type[BaseModel], values: Any) -> Iterator[list[str]]:
    """Yield the keys that `values` lacks and `model` has defaults for."""
    for name, field in model.model_fields.items() if isinstance(values, dict) else ():
        if name not in values and not field.is_required():
            yield [name]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ([name, *inner] for inner in _defaults(field.annotation, values.get(name)))


def _is_derived(detail: ErrorDetails) -> bool:
    """Return whether a list counts as too short only because of invalid items, which have their own errors."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _describe(prefix: list[str], detail: ErrorDetails) -> str:
    """Describe an error in one line: the dotted key, what is wrong, the given value."""
    location = [str(part) for part in detail["loc"] if not str(part).startswith(("function-", "literal[", "tuple["))]
    where = shown(".".join([*prefix, *location]), 200) or "the whole file"
    given = "" if isinstance(detail["input"], dict) else f", got {shown(json.dumps(detail['input']), 100)}"
    match detail["type"]:
        case "missing":
            return f"{where}: {MISSING}"
        case "extra_forbidden":
            return f"{where}: {UNKNOWN}"
        case "value_error":
            return f"{where}: {shown(str(detail['ctx']['error']))}{given}"
        case "tuple_type":
            return f"{where}: must be a list, in brackets{given}"
        case _:
            return f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}{given}"
