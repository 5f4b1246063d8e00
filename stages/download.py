"""Fetch the raw files of the data set that the command line names, unless they are there."""

from pathlib import Path

from ddpm.ingest.fetching import fetch
from ddpm.ingest.mnist import CHECKSUMS
from ddpm.pipeline.stage import Stage, run_stage


def main(stage: Stage) -> None:
    """Fill the folder of the data set."""
    folder = Path("data", stage.item)
    print(f"{folder}: {fetch(stage.item, folder)}")


if __name__ == "__main__":
    run_stage("download", main, [*CHECKSUMS])
