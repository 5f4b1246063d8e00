"""Write the parts of the documentation that come from code, params.yaml, dvc.yaml and metrics.

It fills the parts of pages between `<!-- from NAME -->` and `<!-- end -->`, and draws a plot. A test compares the
committed pages with what this makes.
"""

import re
from collections.abc import Callable
from pathlib import Path

from exact_stages.console import run
from scripts.documenting.commands import command_tables, script_table, target_table
from scripts.documenting.distances import distance_plot
from scripts.documenting.parameters import parameter_tables
from scripts.documenting.pipeline import file_table, stage_table
from scripts.results import configuration_table, page_table

PARTS: dict[str, Callable[[], str]] = {
    "params.yaml": parameter_tables,
    "ddpm": command_tables,
    "Makefile": target_table,
    "scripts": script_table,
    "dvc.yaml": stage_table,
    "files": file_table,
    "metrics": page_table,
    "results": configuration_table,
}
PAGES = [Path("docs", name) for name in ("reference/parameters.md", "reference/cli.md", "reference/pipeline.md")]
PAGES.append(Path("docs/results.md"))
PLOT = Path("docs/results.png")


def made() -> dict[Path, str]:
    """Return the text of each page, with its parts made again."""
    return {path: filled(path.read_text()) for path in PAGES}


def filled(text: str) -> str:
    """Replace the parts of a page."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{PARTS[match[2]]()}\n\n<!-- end -->"

    return re.sub(r"(<!-- from (\S+) -->).*?<!-- end -->", part, text, flags=re.DOTALL)


def main() -> None:
    """Write the pages that differ, and the plot."""
    for path, text in made().items():
        if path.read_text() != text:
            path.write_text(text)
            print(path)
    PLOT.write_bytes(distance_plot())


if __name__ == "__main__":
    run(main)
