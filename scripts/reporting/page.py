"""The page and the model card, filled in from runs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from scripts.reporting import charts, tables
from scripts.reporting.runs import Run

TEMPLATES = Path(__file__).parents[1] / "templates"
LICENCES = {"mnist": "", "fashion_mnist": "mit"}  # of public sets; MNIST's files carry none


def report(runs: Sequence[Run], default: Run | None) -> str:
    """One HTML file with all that it needs.

    Args:
        runs: what it is about, and what stands beside that, if anything.
        default: whose params are the default ones, if known.
    """
    run, against = runs[0], (runs[1] if len(runs) > 1 else None)
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
        compared=list(params),
        params=tables.differences(list(params.values())),
        metrics=tables.changes(tables.metrics(against), tables.metrics(run)) if against else [],
        hashes=tables.beside([tables.hashes(each) for each in runs]),
        environment=tables.beside([{"": environment(each)} for each in runs])[""],
    )


def card(run: Run) -> str:
    """A README.md with the front matter that Hugging Face's hub reads."""
    return _template("card.md.j2", html=False).render(
        **facts(run),
        run=run,
        licences=LICENCES,
        scores=tables.scores([run]),
        index=tables.indexed(run),
        hashes=tables.hashes(run),
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


def environment(run: Run) -> dict[str, Any]:
    """Where it was trained; of a record, also how it was run."""
    return run.mapping("run.json") | run.mapping("metrics/train/environment.json")


def plain(text: str) -> str:
    """Text of a user, such as the name of a class, that is to mean nothing in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~!$])", r"\\\1", " ".join(text.split()))


def drawn(wanted: Sequence[charts.Chart], runs: Sequence[Run]) -> list[tuple[str, dict[str, Any]]]:
    """Titles and specifications of the charts for which there are values."""
    found = ((chart.title, charts.curves(chart, runs)) for chart in wanted)
    return [(title, spec) for title, spec in found if spec]


def _template(name: str, html: bool) -> Template:
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    templates.filters["count"] = lambda number: f"{number:,}"
    templates.filters["plain"] = plain
    templates.filters["value"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    return templates.get_template(name)
