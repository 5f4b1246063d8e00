"""The page and the model card, filled in from runs."""

import json
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from scripts.reporting import charts, tables
from scripts.reporting.runs import Run

TEMPLATES = Path(__file__).parents[1] / "templates"
LICENCES = {"mnist": "", "fashion_mnist": "mit"}  # of public sets; MNIST's files carry none


def report(run: Run, against: Run | None, default: Run | None) -> str:
    """One HTML file with all that it needs.

    Args:
        run: what it is about.
        against: what stands beside it, if anything.
        default: whose params are the default ones, if known.
    """
    runs = [run, *([against] if against else [])]
    pipeline = run.mapping("dvc.yaml") or (default.mapping("dvc.yaml") if default else {})
    params = {each.name: each.flat("params.yaml") for each in reversed(runs)}
    if default and default.flat("params.yaml") not in params.values():
        params = {f"default ({default.name})": default.flat("params.yaml"), **params}
    return _template("report.html.j2", html=True).render(
        **facts(run),
        run=run,
        against=against,
        runs=runs,
        default=default,
        scripts=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=charts.VEGA_LITE),
        classes=charts.classes(run),
        forward=drawn(charts.FORWARD, runs),
        training=drawn(charts.TRAINING, runs),
        distillation=drawn(charts.distillation(runs), runs),
        scores=tables.scores(runs),
        not_run=tables.not_run(run),
        compared=list(params),
        params=tables.differences(list(params.values())),
        metrics=tables.changes(tables.metrics(against), tables.metrics(run)) if against else [],
        hashes=tables.beside([tables.hashes(each, pipeline) for each in runs]),
        environment=tables.beside([{"": each.flat("metrics/train/environment.json")} for each in runs])[""],
    )


def card(run: Run, default: Run | None) -> str:
    """A README.md with the front matter that Hugging Face's hub reads."""
    pipeline = run.mapping("dvc.yaml") or (default.mapping("dvc.yaml") if default else {})
    return _template("card.md.j2", html=False).render(
        **facts(run),
        run=run,
        licences=LICENCES,
        scores=tables.scores([run]),
        index=tables.indexed(run),
        hashes=tables.hashes(run, pipeline),
    )


def facts(run: Run) -> dict[str, Any]:
    """What both say of the data, the training and the params."""
    prepared, trained = (run.mapping(f"metrics/{stage}/summary.json") for stage in ("preprocess", "train"))
    return {
        "prepared": prepared,
        "trained": trained,
        "follows": prepared.get("follows", {}) | trained.get("follows", {}),
        "settings": run.flat("params.yaml"),
    }


def drawn(wanted: list[charts.Chart], runs: list[Run]) -> list[tuple[str, dict[str, Any]]]:
    """Titles and specifications of the charts for which there are values."""
    found = ((chart.title, charts.curves(chart, runs)) for chart in wanted)
    return [(title, spec) for title, spec in found if spec]


def _template(name: str, html: bool) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["value"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    return environment.get_template(name)
