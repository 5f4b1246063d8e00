"""Fetching the files of a known data set from whichever source has them."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ddpm.ingest.datasets import CHECKSUMS, SIZES
from ddpm.ingest.sources import Source, SourceError
from ddpm.pipeline.console import UserError


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
