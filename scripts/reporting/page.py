"""Fill in the HTML report and the model card from runs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scripts.reporting import tables
from scripts.reporting.runs import TRAINED, Run

TEMPLATES = Path(__file__).parents[1] / "templates"
WRITTEN = re.compile(r"^(# |<!-- )written by make card.*?^\1end:", re.DOTALL | re.MULTILINE)
ENVIRONMENT = "metrics/train/environment.json"
FROM_SCRATCH = ("data/processed/train.safetensors", "none")  # of train.fine_tune_from; "none" was chosen
PUBLIC = {  # names and licences of data sets, by DVC's hash of their folder; MNIST's files state no licence
    "d0193be11ab497254ec667a4864050d9.dir": ("mnist", ""),
    "5f974fc07a228533b94e96f0786e9bcc.dir": ("fashion_mnist", "mit"),
}


def report(runs: Sequence[Run]) -> str:
    """Render one self-contained HTML file about a run, and optionally one to compare it with."""
    scores: dict[str, list[list[str]]] = {"quality": [], "copies": []}
    for name, cells in tables.scores([tables.numbers(each) for each in runs]).items():
        scores[tables.MEASURES[name].part].append([name, *(each.replace(" +- ", "\u00a0±\u00a0") for each in cells)])
    return _rendered(
        "report.html.j2",
        html=True,
        **facts(runs[0]),
        run=runs[0],
        against=runs[1] if len(runs) > 1 else None,
        runs=runs,
        scores=scores,
        params=tables.beside([each.flat("params.yaml") for each in runs]),
        environment=tables.beside([each.facts | each.mapping(ENVIRONMENT) for each in runs]),
    )


def card(run: Run) -> str:
    """Render a README.md with the front matter that the Hugging Face Hub reads."""
    known = facts(run)
    if known["model"].get("data", name := known["prepared"].get("data", {}).get("name")) != name:
        known["prepared"] = {}  # of other images than the model's
    folder = run.hashes.get(known["settings"].get("data.set", ""), "") if known["prepared"] else ""
    public, licence = PUBLIC.get(folder, ("", ""))
    return _rendered(
        "card.md.j2",
        html=False,
        **known,
        run=run,
        public=public,
        licence=licence,
        scores=tables.scores([tables.numbers(run)]),
        hashes=tables.hashes(run),
    )


def renewed(card: str, earlier: str) -> str:
    """Return the earlier card with its written parts replaced by those of the new one; the user's lines stay.

    Raises:
        ValueError: the earlier card lacks the comments around a part.
    """
    new, old = ([part.group() for part in WRITTEN.finditer(text)] for text in (card, earlier))
    parts = dict(zip(old, new, strict=True))
    return WRITTEN.sub(lambda part: parts[part.group()], earlier)


def facts(run: Run) -> dict[str, Any]:
    """Collect what both documents say about data, model and params."""
    prepared, trained = (run.mapping(f"metrics/{stage}/summary.json") for stage in ("preprocess", "train"))
    gallery, sampled = (run.mapping(f"metrics/sample/{name}.json") for name in ("gallery", "population"))
    settings = run.flat("params.yaml")
    read = (prepared, trained, gallery, sampled)
    chosen = {name: value for each in read for name, value in each.get("chosen", each.get("follows", {})).items()}
    used = settings | chosen  # earlier records have "follows"
    start = used.get("train.fine_tune_from", "none")
    own = {"parameters": trained.get("parameters"), "class_conditional": settings.get("model.class_conditional")}
    return {
        "prepared": prepared,
        "trained": trained,
        "model": sampled.get("model", own if run.model == TRAINED else {}),
        "began_from": "" if start in FROM_SCRATCH or not run.model.startswith("models/") else start,
        "gallery": gallery,
        "sampled": sampled,
        "chosen": chosen,
        "guidance": used.get("sample.population.guidance", used.get("sample.guidance")),
        "filtered": run.mapping("metrics/filter/summary.json"),
        "settings": settings,
    }


def plain(text: str) -> str:
    """Escape the user's text, such as a class name, for Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~!$])", r"\\\1", " ".join(text.split()))


def _rendered(name: str, html: bool, **values: Any) -> str:
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
    templates.globals["meanings"] = tables.MEANINGS
    templates.filters["value"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    return templates.get_template(name).render(**values)
