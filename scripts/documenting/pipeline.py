"""Tables of the stages of dvc.yaml."""

from pathlib import Path
from typing import Any

from exact_stages.params import read_yaml
from scripts.documenting.parameters import table


def stages() -> dict[str, dict[str, Any]]:
    """Return the stages of dvc.yaml."""
    return read_yaml(Path("dvc.yaml"))["stages"]


def outputs(stage: dict[str, Any]) -> list[str]:
    """Return the paths that a stage writes, as dvc.yaml has them."""
    listed = [each for kind in ("outs", "metrics", "plots") for each in stage.get(kind, [])]
    return [path if isinstance(path, str) else next(iter(path)) for path in listed]


def inputs(stage: dict[str, Any]) -> list[str]:
    """Return the paths that a stage reads, without code."""
    return [dep for dep in stage["deps"] if not dep.startswith(("src/", "stages/"))]


def stage_table() -> str:
    """Return the table of the stages and what each does."""
    rows = [["stage", "what it does"]]
    for name, stage in stages().items():
        items = stage.get("matrix", {})
        shown = "".join(f"@{', @'.join(each)}" if isinstance(each, list) else "@..." for each in items.values())
        rows.append([f"`{name}`{f' ({shown})' if shown else ''}", stage["desc"]])
    return table(rows)


def file_table() -> str:
    """Return the table of what each stage reads and writes."""
    rows = [[f"`{name}`", _paths(inputs(stage)), _paths(outputs(stage))] for name, stage in stages().items()]
    return table([["stage", "reads", "writes"], *rows])


def _paths(paths: list[str]) -> str:
    """Return paths, each once; the metrics of a stage are its folder."""
    short = ["/".join(path.split("/")[:2]) + "/" if path.startswith("metrics/") else path for path in paths]
    return ", ".join(f"`{_plain(each)}`" for each in dict.fromkeys(short))


def _plain(path: str) -> str:
    """Write the item of a matrix in capitals, and a parameter by its key."""
    for name in ("set", "name", "steps"):
        path = path.replace(f"${{item.{name}}}", name.upper())
    return path.replace("${", "").replace("}", "").replace(".safetensors", "")
