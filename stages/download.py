"""Fetch the four raw files of the data set and check their hashes."""

from pathlib import Path
from typing import Literal

from ddpm.data.datasets import SIZES, fetch_dataset
from ddpm.data.sources import sources
from ddpm.runtime.console import progress, run
from ddpm.runtime.files import write_whole
from ddpm.runtime.params import Section, Sections, load_params

RAW = Path("data/raw")


class DownloadParams(Section):
    """Which data set."""

    dataset: Literal["mnist", "fashion_mnist"]


class Params(Sections):
    """What this stage reads."""

    download: DownloadParams


def main() -> None:
    """Fetch all files, then write them."""
    dataset = load_params(Params).download.dataset
    total = sum(SIZES.values())
    with progress(desc=f"download {dataset}", total=total, unit="B", unit_scale=True) as bar:

        def arrived(name: str, _data: bytes, source: str) -> None:
            bar.write(f"{name}: from {source}")
            missing.remove(name)
            bar.update(total - sum(SIZES[name] for name in missing) - bar.n)  # forget what a source gave in vain

        missing = list(SIZES)
        files = fetch_dataset(dataset, sources(dataset, bar.update), arrived)
    for name, data in files.items():
        write_whole(RAW / name, data)


if __name__ == "__main__":
    run(main)
