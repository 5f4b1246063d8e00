"""Write one HTML file about a run that works offline: its pictures, scores and params.

    python -m scripts.report [REV [AGAINST]]

REV is a revision, an experiment or a record such as results/fashion; by default the workspace. It is compared with
AGAINST, by default main if it differs. Run it as `make report REV=... AGAINST=...`; `make card` writes the card of the
model in the workspace.
Stages that are not up to date with their run are named, and their numbers left out.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from exact_stages.console import UserError, run
from exact_stages.files import write_whole
from scripts.reporting import page, tables
from scripts.reporting.runs import Run, main_run, open_run

REPORT, CARD = Path("build/report.html"), Path("models/README.md")


def main(rev: str, against: str, card: bool = False) -> None:
    """Read the runs from git, write the page or the card, and name the stages that are left out.

    Raises:
        UserError: there is no such run; or a card of another one than the workspace is asked for.
    """
    if card and rev:
        how = f"`git checkout {rev}` and `dvc checkout`, or `dvc exp apply {rev}`"
        raise UserError(
            f"REV={rev}: {CARD} is of the model beside it; bring that of {rev} by {how}, then run make card"
        )
    runs = [open_run(rev)]
    if card:
        write_card(runs[0])
    else:
        other = open_run(against) if against else main_run()
        if other and (against or (other.files, other.stale) != (runs[0].files, runs[0].stale)):
            runs.append(comparable(other, runs[0]))
        data = page.report(runs).encode()
        write_whole(REPORT, data)
        names = " compared with ".join(each.name for each in runs)
        print(f"{REPORT}: {names}, {len(data) / 1e6:.1f} MB, for any browser")
    for each in runs:
        if each.left_out:
            print(each.left_out)


def comparable(other: Run, this: Run) -> Run:
    """Leave out the scores of the other run if they are of another version; those of before have none."""
    path = tables.FILES["scores"]
    ours, theirs = this.mapping(path), other.mapping(path)
    if not (ours and theirs) or ours.get("version") == theirs.get("version"):
        return other
    files = {name: data for name, data in other.files.items() if name != path}
    return replace(other, files=files, stale=other.stale | {"evaluate": "scores of another version"})


def write_card(this: Run) -> None:
    """Write the model card; the user's lines stay.

    Raises:
        UserError: the card lacks the comments around what is written.
    """
    text = page.card(this)
    try:
        text = page.renewed(text, CARD.read_text()) if CARD.exists() else text
    except ValueError:
        reason = "lacks the comments around what make card writes"
        raise UserError(
            f"{CARD}: {reason}; move it away, run make card, and copy your lines into the new one"
        ) from None
    write_whole(CARD, text.encode())
    print(f"{CARD}: the model card of {this.name}")


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rev", nargs="?", default="")
    parser.add_argument("against", nargs="?", default="")
    parser.add_argument("--card", action="store_true", help=f"write a model card instead, {CARD}")
    return parser.parse_args()


if __name__ == "__main__":
    run(partial(main, **vars(parsed())))
