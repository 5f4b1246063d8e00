"""The data sets: their files, sizes and checksums, and how they are fetched from whichever source has them.

MNIST: LeCun, Cortes, Burges. Fashion-MNIST: Xiao, Rasul, Vollgraf 2017 (arXiv:1708.07747). Both are four IDX files.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ddpm.data.sources import Source, SourceError
from ddpm.runtime.console import UserError

SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
CHECKSUMS = {  # sha256 of the unpacked files
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}


def missing_files(dataset: str, folder: Path) -> list[str]:
    """The names of the files that `folder` lacks, or has with other bytes than `dataset`.

    Raises:
        UserError: one cannot be read, or is no file.
    """
    return [name for name in SIZES if not _is_true(folder / name, CHECKSUMS[dataset][name])]


def fetch_files(dataset: str, names: Iterable[str], sources: Iterable[Source]) -> Iterator[tuple[str, bytes, str]]:
    """The unpacked files `names` of `dataset`, each from the first source that gives its true bytes.

    Yields:
        A file's name, its bytes and the source's name.

    Raises:
        UserError: some file could not be had; the message lists each source and why it failed.
    """
    missing = list(names)
    failures = []
    for source in sources:
        for name in tuple(missing):
            try:
                data = source.fetch(name, SIZES[name])
            except SourceError as error:
                failures.append(f"{source.name}: {error}")
                break
            if hashlib.sha256(data).hexdigest() != CHECKSUMS[dataset][name]:
                failures.append(f"{source.name}: {name} has the wrong checksum, {len(data):,} bytes; rejected")
                continue
            missing.remove(name)
            yield name, data, source.name
        if not missing:
            return
    raise UserError("\n  ".join([f"{dataset}: no source has {', '.join(missing)}:", *failures]))


def _is_true(path: Path, checksum: str) -> bool:
    """Whether a file is there and has this hash; what else stands there is an error (see `missing_files`)."""
    try:
        if path.exists() and not path.is_file():  # to open a FIFO would hang
            raise UserError(f"{path}: not a file; move it away")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == checksum
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make it readable, or move it away") from None
