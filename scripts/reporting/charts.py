"""Build the charts of one or two runs as Vega-Lite specifications, in colours that follow the page's theme."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.reporting.runs import Run

VEGA_LITE = "6.1"  # 6.4 shows names as "undefined" in the tooltip of the nearest point
MOST_ROWS = 250  # points of a curve: a page does not show more
FEW_ROWS = 40  # up to this, each point is marked as well
CONFIG = {
    "font": "system-ui, sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "labelLimit": 300,
        "title": None,
        "orient": "top",
        "layout": {
            "top": {"direction": "vertical", "anchor": "start"}
        },  # two legends do not fit side by side on a phone
    },
    "range": {"category": ["var(--first)", "var(--second)"]},
}


@dataclass(frozen=True)
class Chart:
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
TRAINING = [
    Chart(
        "Loss",
        {"training": ("train/loss.csv", "train_loss"), "validation": ("train/validation.csv", "validation_loss")},
        *STEP,
        ERROR,
        log=True,
    ),
    Chart(
        "Loss by timestep, in the last epoch",
        {
            "training": ("train/loss_by_timestep.csv", "train_loss"),
            "validation": ("train/validation_by_timestep.csv", "validation_loss"),
        },
        *TIMESTEP,
        ERROR,
        log=True,
    ),
]


def distillation(runs: Sequence[Run]) -> list[Chart]:
    """Return one chart for each number of evaluations that any of the runs distilled its model to."""
    files = {
        path for run in runs for path in run.files if path.startswith("metrics/distill/") and path.endswith(".csv")
    }
    return [
        Chart(
            f"Distillation to {steps} evaluation{'s' if steps != '1' else ''}",
            {"difference": (path.removeprefix("metrics/"), "moments")},
            *STEP,
            "difference of student and data",
            log=True,
        )
        for path in sorted(files)
        for steps in [path.split("/")[2]]
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
    several = len(chart.columns) > 1
    colour = "run" if len(runs) > 1 else "curve"
    log = chart.log and min(row["y"] for row in rows) > 0
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "quantitative", "title": chart.x_title, "scale": {"zero": False, "nice": False}},
        "y": {
            "field": "y",
            "type": "quantitative",
            "title": chart.y_title,
            "scale": {"type": "log", "nice": False} if log else {"zero": False},
            "axis": {"tickCount": 5, "format": "~g" if log else "~r"},
        },
        "color": {
            "field": colour,
            "type": "nominal",
            "sort": [run.name for run in runs] if colour == "run" else list(chart.columns),
            "legend": {"symbolType": "stroke"} if several or len(runs) > 1 else None,
        },
        "tooltip": [
            {"field": "x", "type": "quantitative", "title": chart.x},
            {"field": "y", "type": "quantitative", "title": chart.y_title, "format": ".4~g"},
            *([{"field": "curve", "title": "curve"}] if several else []),
            *([{"field": "run", "title": "run"}] if len(runs) > 1 else []),
        ],
    }
    if several and len(runs) > 1:
        legend = {"symbolType": "stroke", "symbolStrokeColor": "var(--ink)", "symbolFillColor": "transparent"}
        encoding["strokeDash"] = {"field": "curve", "type": "nominal", "sort": list(chart.columns), "legend": legend}
    nearest = {"type": "point", "on": "pointerover", "clear": "pointerout", "nearest": True}
    shown = {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0}
    return {
        **_frame(f"{chart.title}: {'; '.join(ends)}", rows),
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "line", "point": len(rows) <= FEW_ROWS * len(runs) * len(chart.columns)}},
            {
                "mark": {"type": "point", "filled": True, "size": 70},
                "params": [{"name": "hover", "select": nearest}],
                "encoding": {"opacity": shown},
            },
        ],
    }


def classes(run: Run) -> dict[str, Any] | None:
    """Plot the number of training images of each class; None if it is unknown, or there is a single class."""
    counts = run.mapping("metrics/preprocess/summary.json").get("train", {}).get("label_counts", {})
    if len(counts) < 2:
        return None
    axis = {"labelAngle": -45 if max(map(len, counts)) > 3 else 0, "labelOverlap": True, "labelLimit": 90}
    least, most = min(counts, key=counts.get), max(counts, key=counts.get)
    text = f"{counts[least]} of {least}, the rarest, to {counts[most]} of {most}, the most frequent"
    return {
        **_frame(f"Training images by class: {text}", [{"class": name, "n": n} for name, n in counts.items()]),
        "mark": {"type": "bar", "color": "var(--first)"},
        "encoding": {
            "x": {"field": "class", "type": "nominal", "sort": None, "axis": axis, "title": "class"},
            "y": {"field": "n", "type": "quantitative", "title": "training images"},
            "tooltip": [{"field": "class"}, {"field": "n", "title": "images"}],
        },
    }


def _frame(description: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # an identifier, which is not fetched
        "description": description,
        "width": "container",
        "height": 220,
        "config": CONFIG,
        "data": {"values": rows},
    }
