"""The pipeline of dvc.yaml, as a table and as a drawing."""

from html import escape
from pathlib import Path
from typing import Any

from ddpm.pipeline.params import read_yaml
from scripts.documenting.parameters import table

WIDTH, ROW, BOX, HIGH = 800, 78, 190, 46  # pixels
# The centre of each stage's box (across, row), and a second line of text.
PLACES = {
    "download": (400, 0, ""),
    "preprocess": (400, 1, ""),
    "forward_diffusion": (110, 2, ""),
    "train": (400, 2, ""),
    "classifier": (690, 2, "a, b"),
    "likelihood": (110, 3, ""),
    "distill": (400, 3, "none by default"),
    "sample": (400, 4, "gallery, population"),
    "filter": (400, 5, ""),
    "evaluate": (250, 6, ""),
    "classification_accuracy_score": (550, 6, ""),
}
OPTIONAL = ("distill", "sample")  # sample reads a distilled model only if sample.model names one
STYLE = """
  rect { fill: #2f5d8a; } rect.optional { fill: #6b7480; }
  text { fill: #fff; font: 600 15px system-ui, sans-serif; text-anchor: middle; }
  text.small { font-weight: 400; font-size: 13px; }
  path { fill: none; stroke: #8a94a0; stroke-width: 2; marker-end: url(#head); }
  path.optional { stroke-dasharray: 6 4; }
  marker path { fill: #8a94a0; stroke: none; marker-end: none; }
"""


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


def edges() -> list[tuple[str, str]]:
    """Return which stage reads what another writes; without those that a longer way through the pipeline implies."""
    found, whole = stages(), {"${data.set}": "data/${item.set}", "${sample.model}": "models/ddpm.safetensors"}
    makers = {path: name for name, stage in found.items() for path in outputs(stage)}
    makers |= {f"models/classifier-{name}.safetensors": "classifier" for name in found["classifier"]["matrix"]["name"]}
    makers |= {f"data/samples/{name}.safetensors": "sample" for name in found["sample"]["matrix"]["set"]}
    before = {
        name: {makers[path] for dep in inputs(stage) if (path := whole.get(dep, dep)) in makers}
        for name, stage in found.items()
    }

    def ancestors(name: str) -> set[str]:
        return before[name].union(*map(ancestors, before[name])) if before[name] else set()

    return [
        (source, name)
        for name, sources in before.items()
        for source in sorted(sources)
        if not any(source in ancestors(other) for other in sources - {source})
    ]


def drawing() -> str:
    """Return the pipeline as SVG: boxes of stages, top to bottom, that read well on light and on dark pages."""
    rows = 1 + max(row for _, row, _ in PLACES.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {rows * ROW}" width="{WIDTH}"'
        f' height="{rows * ROW}" role="img" aria-label="The stages of the pipeline">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 10 5 0 10z"/></marker></defs>',
    ]
    parts += [_arrow(*edge) for edge in [*edges(), OPTIONAL]]
    parts += [_box(name) for name in stages()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(name: str) -> str:
    across, row, more = PLACES[name]
    top = row * ROW + (ROW - HIGH) // 2
    lines = name.replace("classification_accuracy_score", "classification_ accuracy_score").split()
    lines += [more] if more else []
    kind = ' class="optional"' if name in OPTIONAL[:1] else ""
    texts = [
        f'<text x="{across}" y="{top + HIGH // 2 + 5 + 19 * number - 19 * (len(lines) - 1) // 2}"'
        f"{' class=' + chr(34) + 'small' + chr(34) if line == more else ''}>{escape(line)}</text>"
        for number, line in enumerate(lines)
    ]
    return f'<rect{kind} x="{across - BOX // 2}" y="{top}" width="{BOX}" height="{HIGH}" rx="8"/>' + "".join(texts)


def _arrow(source: str, target: str) -> str:
    """Return the arrow from the foot of one box to the head of another; past others, to its side or around them."""
    (from_x, from_row, _), (to_x, to_row, _) = PLACES[source], PLACES[target]
    start, end = from_row * ROW + (ROW + HIGH) // 2, to_row * ROW + (ROW - HIGH) // 2
    optional = ' class="optional"' if OPTIONAL[0] in (source, target) else ""
    if from_x == to_x and to_row - from_row > 1:  # around the box between
        side, middle = from_x + BOX // 2 + 40, (start + end) // 2
        return f'<path{optional} d="M{from_x + 50} {start} Q{side} {start + 20} {side} {middle} T{from_x + 50} {end}"/>'
    if to_row - from_row > 1:
        side, middle = to_x + (1 if from_x > to_x else -1) * BOX // 2, to_row * ROW + ROW // 2
        return f'<path{optional} d="M{from_x} {start} C{from_x} {middle} {from_x} {middle} {side} {middle}"/>'
    middle = (start + end) // 2
    return f'<path{optional} d="M{from_x} {start} C{from_x} {middle} {to_x} {middle} {to_x} {end}"/>'
