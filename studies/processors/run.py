"""Print hashes of single operations in portable mode, on which all processors should agree, and keep them as a row.

    python -m studies.processors.run

Rows are in results.csv.
"""

import argparse
import os
from pathlib import Path

from ddpm.processes.portable import PORTABLE, limit
from exact_stages.console import run

RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    """Compute the row of this processor; print it, and the first operation at which another row differs."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    os.environ["DDPM_PRECISION"] = PORTABLE
    limit()
    from studies.processors.operations import hashes, processor
    from studies.table import Table

    here, found, table = processor(), hashes(), Table(RESULTS)
    print(*(f"{name}: {value}" for name, value in (here | found).items()), sep="\n")
    for row in table.rows:
        other = next((name for name in found if row.get(name) != found[name]), "nothing")
        print(f"{row['cpu']}, torch {row['torch']}: the first operation that differs: {other}")
    table.rows = [row for row in table.rows if (row["cpu"], row["torch"]) != (here["cpu"], here["torch"])]
    table.add(here | found)


if __name__ == "__main__":
    run(main)
