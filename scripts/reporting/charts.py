"""Build the charts of one or two runs as Vega-Lite specifications, in colours that follow the page's theme."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from scripts.reporting.runs import Run

VEGA_LITE = "6.1"
MOST_ROWS = 250  # points of a curve: a page does not show more
FEW_ROWS = 80  # of all curves: below this, their points are marked
TEXT = {"labelColor": "var(--ink)", "labelFontSize": 12}
LINES = {"gridColor": "var(--line)", "domainColor": "var(--line)", "tickColor": "var(--line)"}
CONFIG = {
    "font": "system-ui, sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {**TEXT, **LINES, "titleColor": "var(--ink)", "titleFontSize": 12, "titleFontWeight": "normal"},
    "legend": {
        **TEXT,
        "labelLimit": 300,
        "title": None,
        "orient": "top",
        "layout": {"top": {"direction": "vertical", "anchor": "start"}},  # two do not fit side by side on a phone
    },
    "range": {"category": ["var(--first)", "var(--second)"]},
}


class Chart(NamedTuple):
    """Columns of csv files below metrics/, plotted over a column that they share."""

    title: str
    columns: dict[str, tuple[str, str]]  # text of the legend: file, column
    x: str
    x_title: str
    y_title: str
    log: bool = False


STEP, TIMESTEP = ("step", "training step"), ("t", "timestep t (0 is the clean image)")
ERROR = "mean squared error of the noise"
SCHEDULE = "forward_diffusion/schedule.csv"
FORWARD = [
    Chart("Remaining signal", {"signal": (SCHEDULE, "alphas_cumprod")}, *TIMESTEP, "share of the variance"),
    Chart("Noise of each step", {"beta": (SCHEDULE, "betas")}, *TIMESTEP, "variance"),
    Chart("Signal-to-noise ratio", {"ratio": (SCHEDULE, "log10_snr")}, *TIMESTEP, "log10 of the ratio"),
]
LOSS = {"training": ("train/loss.csv", "train_loss"), "validation": ("train/validation.csv", "validation_loss")}
BY_TIMESTEP = {name: (file.replace(".csv", "_by_timestep.csv"), column) for name, (file, column) in LOSS.items()}
TRAINING = [
    Chart("Loss", LOSS, *STEP, ERROR, log=True),
    Chart("Loss by timestep, in the last epoch", BY_TIMESTEP, *TIMESTEP, ERROR, log=True),
]


def distillation(runs: Sequence[Run]) -> list[Chart]:
    """Return one chart for each number of evaluations that any of the runs distilled its model to."""
    files = sorted({path for run in runs for path in run.files if path.startswith("metrics/distill/")})
    return [
        Chart(
            f"Distillation, number of evaluations: {path.split('/')[2]}",
            {"difference": (path.removeprefix("metrics/"), "moments")},
            *STEP,
            "difference of student and data",
            log=True,
        )
        for path in files
        if path.endswith(".csv")
    ]


def curves(chart: Chart, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return the specification of a chart, or None if it has no data; colours tell columns or two runs apart."""
    rows: list[dict[str, Any]] = []
    ends = []
    for run in runs:
        for label, (file, column) in chart.columns.items():
            found = [row for row in run.table(f"metrics/{file}") if chart.x in row and column in row]
            thinned = found[:: -(-len(found) // MOST_ROWS) or 1]
            rows += [{"x": row[chart.x], "y": row[column], "curve": label, "run": run.name} for row in thinned]
            if found:
                ends.append(f"{label} of {run.name}, from {found[0][column]:.4g} to {found[-1][column]:.4g}")
    if not rows:
        return None
    columns, names = list(chart.columns), [run.name for run in runs]
    log = chart.log and min(row["y"] for row in rows) > 0
    scale = {"type": "log", "nice": False} if log else {"zero": False}
    axis = {"tickCount": 5, "format": "~g" if log else "~r"}
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "quantitative", "title": chart.x_title, "scale": {"zero": False, "nice": False}},
        "y": {"field": "y", "type": "quantitative", "title": chart.y_title, "scale": scale, "axis": axis},
    }
    field, order = ("run", names) if len(runs) > 1 else ("curve", columns)
    legend = {"symbolType": "stroke"} if len(order) > 1 else None
    encoding["color"] = {"field": field, "type": "nominal", "sort": order, "legend": legend}
    if len(runs) > 1 and len(columns) > 1:
        legend = {"symbolType": "stroke", "symbolStrokeColor": "var(--ink)", "symbolFillColor": "transparent"}
        encoding["strokeDash"] = {"field": "curve", "type": "nominal", "sort": columns, "legend": legend}
    mark = {"type": "line", "point": len(rows) < FEW_ROWS or "transparent", "tooltip": True}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # an identifier, which is not fetched
        "description": f"{chart.title}: {'; '.join(ends)}",
        "width": "container",
        "height": 220,
        "config": CONFIG,
        "data": {"values": rows},
        "mark": mark,
        "encoding": encoding,
    }
