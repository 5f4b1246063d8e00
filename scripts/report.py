"""Write one HTML file about a run that works offline: its pictures, curves, scores, params and hashes.

    python -m scripts.report [REV [AGAINST]]

REV is a revision, an experiment or a record such as results/fashion; by default the workspace. It is compared with
AGAINST, by default main if it differs. Run it as `make report REV=... AGAINST=...`; `make card` writes a model card.
Stages that are not up to date with their run are named, and their numbers left out.
"""

import argparse
from functools import partial
from pathlib import Path

from exact_stages.console import UserError, run
from exact_stages.files import write_whole
from scripts.reporting import page
from scripts.reporting.runs import main_run, open_run

REPORT, CARD = Path("build/report.html"), Path("models/README.md")


def main(rev: str, against: str, card: bool = False, out: Path | None = None) -> None:
    """Read the runs from git, write the page or the card, and name the stages that are left out."""
    this = open_run(rev)
    if card:
        runs, out = [this], out or CARD
        text = page.card(this)
        try:
            text = page.renewed(text, out.read_text()) if out.exists() else text
        except ValueError:
            reason = "lacks the comments around what make card writes"
            raise UserError(
                f"{out}: {reason}; move it away, run make card, and copy your lines into the new one"
            ) from None
        write_whole(out, text.encode())
        print(f"{out}: the model card of {this.name}")
    else:
        default = main_run()
        other = open_run(against) if against else default
        if other and not against and (other.files, other.stale) == (this.files, this.stale):
            other = None
        runs, out = [this, *([other] if other else [])], out or REPORT
        data = page.report(runs, default).encode()
        write_whole(out, data)
        print(f"{out}: {' compared with '.join(each.name for each in runs)}, {len(data) / 1e6:.1f} MB, for any browser")
    for each in runs:
        if each.left_out:
            print(each.left_out)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description="Write one HTML file about a run.")
    parser.add_argument("rev", nargs="?", default="", help="revision, experiment or record; by default the workspace")
    parser.add_argument("against", nargs="?", default="", help="run to compare with; by default main if it differs")
    parser.add_argument("--card", action="store_true", help=f"write a model card instead, to {CARD}")
    parser.add_argument("--out", type=Path, help=f"file to write; by default {REPORT}, with --card {CARD}")
    return parser.parse_args()


if __name__ == "__main__":
    run(partial(main, **vars(parsed())))
