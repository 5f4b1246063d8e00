"""Load params.yaml strictly: every error at once, each named by `section.key`."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ddpm.pipeline.console import UserError, shown

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
    values = read_yaml(path)
    for key in section.split(".") if section else ():
        values = values.get(key) if isinstance(values, dict) else None
        if values is None:
            raise UserError(f"{path}: {section}: missing; add it ({DEFAULTS})")
    return parse(model, values, str(path), section)


def parse(model: type[S], values: Any, source: str, section: str = "") -> S:
    """Check `values` against `model`; `source` and `section` say in the error where they come from."""
    # As JSON, of which strict mode takes a list for a tuple, and still no string for a number. A date becomes a string.
    text = json.dumps(values, default=str)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        prefix = section.split(".") if section else []
        details = [detail for detail in error.errors(include_url=False) if not _follows(detail)]
        lines = [f"{source}: {len(details)} invalid", *(_describe(prefix, detail) for detail in details)]
        raise UserError("\n  ".join(lines)) from None


def read_yaml(path: Path) -> Any:
    """Load YAML 1.2 by the reader that DVC uses: 1e-05 is a number, and a key given twice is an error.

    Raises:
        UserError: the file is missing, not UTF-8, in conflict, or not valid YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this at the top of the repository") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    if conflict := re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        mend = "keep one side of it, and delete the lines of <<<<<<<, ======= and >>>>>>>"
        raise UserError(f"{path}: line {line}: a merge conflict of git; {mend}")
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{path}: not valid YAML: line {mark.line + 1}: {error.problem or error.context}") from None
    except (YAMLError, ValueError) as error:  # a character that YAML forbids, a date that does not exist
        raise UserError(f"{path}: not valid YAML: {shown(str(error))}") from None


def _follows(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because items of it, reported themselves, are invalid."""
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _describe(prefix: list[str], detail: ErrorDetails) -> str:
    """Write one line: the dotted key, what is wrong, and the value given."""
    location = [str(part) for part in detail["loc"] if not str(part).startswith(("function-", "literal[", "tuple["))]
    where = shown(".".join([*prefix, *location]), 200) or "the whole file"
    given = "" if isinstance(detail["input"], dict) else f", got {shown(json.dumps(detail['input']), 100)}"
    match detail["type"]:
        case "missing":
            return f"{where}: missing; add it ({DEFAULTS})"
        case "extra_forbidden" if where in FORMER:
            return f"{where}: is called {FORMER[where]} now; rename it"
        case "extra_forbidden":
            return f"{where}: unknown key; remove it or mend its spelling"
        case "value_error":
            return f"{where}: {shown(str(detail['ctx']['error']))}{given}"
        case "tuple_type":
            return f"{where}: must be a list, in brackets{given}"
        case _:
            return f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}{given}"
