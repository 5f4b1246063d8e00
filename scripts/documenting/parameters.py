"""Tables of the parameters: values and comments from params.yaml, ranges from the models that check them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ddpm.images.card import MAX_SIDE
from exact_stages.params import read_yaml
from stages.check import AllParams

PARAMS = Path("params.yaml")
CLASSES = "`all`, or a list of names"
RANGES = {  # of values that a function checks: a schema does not say what it takes
    "data.image_size": f"pixels or a pair of them, up to {MAX_SIDE:,}; or `null`",
    "data.background": "name of a colour, or `#rrggbb`",
    "schedule.beta_start": "10^-10 to below 1",
    "train.classes": CLASSES,
    "sample.gallery.classes": CLASSES,
}


class Comments(NamedTuple):
    """The comments of params.yaml by dotted key: of sections, and of values."""

    sections: dict[str, str]
    values: dict[str, str]


def comments(text: str) -> Comments:
    """Read the comment behind each key."""
    found = Comments({}, {})
    path: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"( *)(\w+):([^#]*)(?:# *(.*))?$", line):
            indent, key, value, comment = match.groups()
            path = [*path[: len(indent) // 2], key]
            (found.values if value.strip() else found.sections)[".".join(path)] = comment or ""
    return found


def parameter_tables() -> str:
    """Return a heading and a table for each section; both sets of samples share one table."""
    values, said = read_yaml(PARAMS), comments(PARAMS.read_text())
    schema = AllParams.model_json_schema()
    parts = []
    for section, fields in values.items():
        schemas = _fields(schema, schema["properties"][section])
        rows = [*_rows(section, fields, schemas, said)]
        about = said.sections[section]
        parts.append(f"## {section}\n\n" + (f"{about[0].upper()}{about[1:]}.\n\n" if about else "") + _table(rows))
        if section == "sample":
            parts.append(_sets(fields, _fields(schema, schemas["gallery"]), said))
    return "\n\n".join(parts)


def _rows(section: str, fields: dict[str, Any], schemas: dict[str, Any], said: Comments) -> Iterator[list[str]]:
    for key, value in fields.items():
        if not isinstance(value, dict):
            path = f"{section}.{key}"
            yield [f"`{path}`", f"`{_shown(value)}`", RANGES.get(path) or _range(schemas[key]), _meaning(path, said)]


def _sets(fields: dict[str, Any], schemas: dict[str, Any], said: Comments) -> str:
    """Return the table of `sample.gallery` and `sample.population`, which have the same keys."""
    texts = {name: said.sections[f"sample.{name}"].partition(";")[0] for name in ("gallery", "population")}
    about = ", ".join(f"`sample.{name}` has {text}" for name, text in texts.items())
    rows = [["key of both", "gallery", "population", "range or choices", "meaning"]]
    for key, value in fields["gallery"].items():
        path, other = f"sample.gallery.{key}", fields["population"][key]
        allowed = RANGES.get(path) or _range(schemas[key])
        rows.append([f"`{key}`", f"`{_shown(value)}`", f"`{_shown(other)}`", allowed, _meaning(path, said)])
    return f"{about}.\n\n" + table(rows)


def _meaning(path: str, said: Comments) -> str:
    """Return the comment of a key."""
    key, own = path.rpartition(".")[2], said.values[path]
    if key == "seed":
        return f"random seed {own}".strip()
    return own


def _shown(value: Any) -> str:
    """Write a value as YAML does, in one line."""
    return value if isinstance(value, str) else json.dumps(value)


def _fields(whole: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of a section's fields."""
    return whole["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]


def _range(schema: dict[str, Any]) -> str:
    """Describe in words what a schema allows."""
    if "anyOf" in schema:
        return " or ".join(_range(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    match schema["type"]:
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "string":
            return "path"
        case "array" if "prefixItems" in schema:
            return f"pair of {_range(schema['prefixItems'][0])}"
        case "array":
            most = f" of up to {schema['maxItems']}" if "maxItems" in schema else ""
            return f"list{most}: {_range(schema['items'])}"
        case kind:
            return f"{'integer ' if kind == 'integer' else ''}{_bounds(schema)}"


def _bounds(schema: dict[str, Any]) -> str:
    low = f"above {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else _number(schema["minimum"])
    if "exclusiveMaximum" in schema:
        return f"{low} to below {_number(schema['exclusiveMaximum'])}"
    return f"{low} to {_number(schema['maximum'])}" if "maximum" in schema else f"{low} or more"


def _number(value: float) -> str:
    """Write powers as powers."""
    if value >= 10**6 and (power := f"{value:.0e}").startswith("1e"):
        return f"10^{int(power[3:])}"
    return "2^63" if value == 2**63 else f"{value:,g}" if value < 10**6 else f"{value:,}"


def _table(rows: list[list[str]]) -> str:
    return table([["key", "default", "range or choices", "meaning"], *rows]) if rows else ""


def table(rows: list[list[str]]) -> str:
    """Return rows as a table; the first is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])
