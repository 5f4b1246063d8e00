"""Write the model card of the workspace, models/README.md, which the Hugging Face Hub reads: `make card`."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ddpm.images.starts import CHOSEN, SCRATCH
from exact_stages.console import UserError, run
from exact_stages.files import write_whole
from scripts import tables
from scripts.runs import TRAINED, Run, open_run

CARD = Path("models/README.md")
WRITTEN = re.compile(r"^(# |<!-- )written by make card.*?^\1end:", re.DOTALL | re.MULTILINE)
PUBLIC = {  # names and licences of data sets, by DVC's hash of their folder; MNIST's files state no licence
    "d0193be11ab497254ec667a4864050d9.dir": ("mnist", ""),
    "5f974fc07a228533b94e96f0786e9bcc.dir": ("fashion_mnist", "mit"),
}


def main() -> None:
    """Write the card; the user's lines stay.

    Raises:
        UserError: a stage is not up to date, or the card lacks the comments around what is written.
    """
    text = card(open_run(""))
    try:
        text = renewed(text, CARD.read_text()) if CARD.exists() else text
    except ValueError:
        reason = "lacks the comments around what make card writes"
        raise UserError(
            f"{CARD}: {reason}; move it away, run make card, and copy your lines into the new one"
        ) from None
    write_whole(CARD, text.encode())
    print(f"{CARD}: the model card of this run")


def card(run: Run) -> str:
    """Render the card, with the front matter that the Hub reads."""
    known = facts(run)
    if known["model"].get("data", name := known["prepared"].get("data", {}).get("name")) != name:
        known["prepared"] = {}  # of other images than the model's
    prepared = known["prepared"]
    classes = known["model"].get("classes", prepared["data"]["classes"]) if prepared else []  # those it has learned
    folder = run.hashes.get(run.flat("params.yaml").get("data.set", ""), "") if prepared else ""
    public, licence = PUBLIC.get(folder, ("", ""))
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # `plain` escapes what the user named
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    templates.filters |= {"count": lambda number: f"{number:,}", "plain": plain}
    return templates.get_template("card.md.j2").render(
        **known,
        run=run,
        classes=classes,
        test_images=sum(prepared["test"]["label_counts"][name] for name in classes),
        public=public,
        licence=licence,
        scores=tables.scores((tables.numbers(run), row) for row in tables.ROWS),
        rows=tables.ROWS.values(),
        measures=tables.MEASURES,
        hashes=[(path, md5) for path, md5 in sorted(run.hashes.items()) if path.startswith(("data/", "models/"))],
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
    """Collect what the card says about the images, the sampled model, and the model that its training began from."""
    prepared, trained = (run.mapping(f"metrics/{stage}/summary.json") for stage in ("preprocess", "train"))
    sampled = run.mapping("metrics/sample/scored.json")
    start = run.flat("params.yaml").get("train.fine_tune_from", SCRATCH)
    start = trained.get("chosen", {}).get("train.fine_tune_from", SCRATCH) if start == CHOSEN else start
    return {
        "prepared": prepared,
        "model": sampled.get("model", trained if run.model == TRAINED else {}),
        "began_from": "" if start == SCRATCH or not run.model.startswith("models/") else start,
    }


def plain(text: str) -> str:
    """Escape the user's text, such as a class name, for Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~!$])", r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    run(main)
