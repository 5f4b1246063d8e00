"""Write one HTML file that tells a run, and works offline: its pictures, curves, scores, params and hashes.

    python -m scripts.report [REV [AGAINST]]

REV is a revision, an experiment or a record such as results/fashion; without it, the workspace. Beside it stands
AGAINST, or main where that differs. Run it as `make report REV=... AGAINST=...`; `make card` writes a card. Numbers of
stages that are not up to date with their run are left out, and the stages named.
"""

import argparse
from functools import partial
from pathlib import Path

from ddpm.pipeline.console import run
from ddpm.pipeline.files import write_whole
from scripts.reporting import page
from scripts.reporting.runs import main_run, open_run

REPORT, CARD = Path("build/report.html"), Path("models/README.md")


def main(rev: str, against: str, card: bool = False, out: Path | None = None) -> None:
    """Read what git keeps of the runs, say where the page is, and which stages are left out of it."""
    this = open_run(rev)
    if card:
        runs, out = [this], out or CARD
        write_whole(out, page.card(this).encode())
        print(f"{out}: the model card of {this.name}")
    else:
        default = main_run()
        other = open_run(against) if against else default
        if other and not against and (other.files, other.stale) == (this.files, this.stale):
            other = None
        runs, out = [this, *([other] if other else [])], out or REPORT
        data = page.report(runs, default).encode()
        write_whole(out, data)
        print(f"{out}: {' beside '.join(each.name for each in runs)}, {len(data) / 1e6:.1f} MB, for any browser")
    for each in runs:
        if each.left_out:
            print(each.left_out)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.report", description="Write one HTML file that tells a run."
    )
    parser.add_argument("rev", nargs="?", default="", help="revision, experiment or record; by default the workspace")
    parser.add_argument("against", nargs="?", default="", help="what stands beside it; by default main if that differs")
    parser.add_argument("--card", action="store_true", help=f"write a model card instead, to {CARD}")
    parser.add_argument("--out", type=Path, help=f"where to; by default {REPORT}")
    return parser.parse_args()


if __name__ == "__main__":
    run(partial(main, **vars(parsed())))
