"""Download the missing raw files of a data set, named on the command line."""

from pathlib import Path

from ddpm.ingest.fetching import CHECKSUMS, fetch
from exact_stages.stage import Stage, run_stage


def main(stage: Stage) -> None:
    """Download the files and print their source."""
    folder = Path("data", stage.item)
    print(f"{folder}: {fetch(stage.item, folder)}")


if __name__ == "__main__":
    run_stage("download", main, [*CHECKSUMS])
