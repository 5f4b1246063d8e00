"""Fetch the raw files of the data set that the command line names, and keep those whose hashes are right already."""

from pathlib import Path

from ddpm.ingest.datasets import CHECKSUMS, SIZES
from ddpm.ingest.fetching import fetch_files, missing_files
from ddpm.ingest.sources import sources
from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.files import write_whole
from ddpm.pipeline.stage import Stage, run_stage

DATA = Path("data")


def main(stage: Stage) -> None:
    """Fetch what is missing or has other bytes, and write each file once its hash is right."""
    dataset = stage.item
    folder = DATA / dataset
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: a file is in this folder's way; move it away") from None
    missing = missing_files(dataset, folder)
    if kept := [name for name in SIZES if name not in missing]:
        print(f"{folder}: kept, for their hashes are right: {', '.join(kept)}")
    if not missing:
        return
    total = sum(SIZES[name] for name in missing)
    with progress(desc=f"download {dataset}", total=total, unit="B", unit_scale=True) as bar:
        written = 0

        def show(arrived: int) -> None:
            bar.update(written + arrived - bar.n)

        for name, data, source in fetch_files(dataset, missing, sources(dataset, show)):
            write_whole(folder / name, data)
            bar.write(f"{name}: from {source}")
            written += len(data)
            show(0)


if __name__ == "__main__":
    run_stage("download", main, [*CHECKSUMS])
