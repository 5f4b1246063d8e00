import gzip
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpm.ingest.datasets import CHECKSUMS, SIZES
from ddpm.ingest.fetching import missing_files
from ddpm.ingest.sources import Folder
from ddpm.pipeline.console import UserError
from ddpm.pipeline.stage import Stage, run_stage
from stages import download

ROOT = Path(__file__).parents[2]
NAMES = list(SIZES)
FILES = {name: random.Random(name).randbytes(200 + index) for index, name in enumerate(NAMES)}
TARGET = Path("data/mnist")


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data set `mnist` is FILES, which the user's folder has, and which the stage is to fetch."""
    for name, data in FILES.items():
        monkeypatch.setitem(SIZES, name, len(data))
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setitem(CHECKSUMS, "mnist", checksums)
    folder = fill(tmp_path / "mine")
    monkeypatch.setenv("DDPM_DATA_DIR", str(folder))
    monkeypatch.setattr(sys, "argv", ["download", "mnist"])
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # no further source is to be made
    monkeypatch.chdir(tmp_path)
    return folder


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error() -> str:
    """What the stage's process ends with, which is one line."""
    with pytest.raises(SystemExit) as caught:
        run_stage("download", download.main, [*CHECKSUMS])
    assert isinstance(caught.value.code, str)
    assert "\n" not in caught.value.code
    return caught.value.code


def test_all_files_are_written(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    download.main(Stage("download", "mnist"))
    assert contents(TARGET) == FILES
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"{name}: from DDPM_DATA_DIR={mine}" for name in NAMES]
    assert f"{sum(map(len, FILES.values()))}/{sum(map(len, FILES.values()))}" in printed.err  # the bar is full


def test_true_files_are_kept_and_nothing_is_fetched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(TARGET)
    before = {path: path.stat() for path in TARGET.iterdir()}
    monkeypatch.setenv("DDPM_DATA_DIR", "/nowhere")  # an error, if it were used
    download.main(Stage("download", "mnist"))
    assert {path: path.stat() for path in TARGET.iterdir()} == before
    printed = capsys.readouterr()
    assert printed.out == f"data/mnist: kept, for their hashes are right: {', '.join(NAMES)}\n"
    assert printed.err == ""


def test_only_wrong_and_missing_files_are_replaced(capsys: pytest.CaptureFixture[str], mine: Path) -> None:
    fill(TARGET)
    (TARGET / NAMES[0]).write_bytes(b"wrong")
    (TARGET / NAMES[2]).unlink()
    before = {name: (TARGET / name).stat() for name in (NAMES[1], NAMES[3])}
    for name in before:
        (mine / name).unlink()  # it is not needed
    download.main(Stage("download", "mnist"))
    assert contents(TARGET) == FILES
    assert {name: (TARGET / name).stat() for name in before} == before
    assert capsys.readouterr().out.splitlines() == [
        f"data/mnist: kept, for their hashes are right: {NAMES[1]}, {NAMES[3]}",
        f"{NAMES[0]}: from DDPM_DATA_DIR={mine}",
        f"{NAMES[2]}: from DDPM_DATA_DIR={mine}",
    ]


def test_what_a_link_leads_to_is_not_written_to(tmp_path: Path) -> None:
    """DVC's cache may be behind it, or nothing any more."""
    cached = tmp_path / "cached"
    cached.write_bytes(b"of another data set")
    TARGET.mkdir(parents=True)
    (TARGET / NAMES[0]).symlink_to(cached)
    (TARGET / NAMES[1]).symlink_to(tmp_path / "gone")
    download.main(Stage("download", "mnist"))
    assert contents(TARGET) == FILES
    assert not (TARGET / NAMES[0]).is_symlink()
    assert cached.read_bytes() == b"of another data set"


@pytest.mark.parametrize("named", ["data/mnist", "data", "link"])
def test_the_users_folder_may_be_the_very_same(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is there as an archive, which is unpacked and stays; nothing else changes."""
    fill(TARGET)
    (TARGET / NAMES[1]).unlink()
    archive = gzip.compress(FILES[NAMES[1]])
    (TARGET / f"{NAMES[1]}.gz").write_bytes(archive)
    Path("link").symlink_to(TARGET)
    monkeypatch.setenv("DDPM_DATA_DIR", named)
    download.main(Stage("download", "mnist"))
    assert contents(TARGET) == FILES | {f"{NAMES[1]}.gz": archive}


def test_a_wrong_file_stays_until_there_is_a_true_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(TARGET)
    (TARGET / NAMES[1]).write_bytes(b"wrong")
    monkeypatch.setattr(download, "sources", lambda *_: [Folder(TARGET, "the same")])
    with pytest.raises(UserError, match=f"the same: {NAMES[1]} has the wrong checksum, 5 bytes; rejected"):
        download.main(Stage("download", "mnist"))
    assert contents(TARGET) == FILES | {NAMES[1]: b"wrong"}


def test_files_before_a_failure_are_kept_for_the_next_attempt(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = (mine / NAMES[3]).rename(mine / "elsewhere")
    monkeypatch.setattr(download, "sources", lambda *_: [Folder(mine, "mine")])
    with pytest.raises(UserError, match=f"no source has {NAMES[3]}:"):
        download.main(Stage("download", "mnist"))
    assert contents(TARGET) == {name: FILES[name] for name in NAMES[:3]}
    last.rename(mine / NAMES[3])
    capsys.readouterr()
    download.main(Stage("download", "mnist"))
    assert capsys.readouterr().out.splitlines()[1:] == [f"{NAMES[3]}: from mine"]
    assert contents(TARGET) == FILES


# --- poor ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["cifar"], ["mnist", "fashion_mnist"], [""], ["mnist/../x"]])
def test_usage(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["download", *arguments])
    assert error() == "error: usage: python -m stages.download {mnist,fashion_mnist}"
    assert not Path("data").exists()


@pytest.mark.parametrize("place", ["data", "data/mnist"])
@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("gone")])
def test_no_folder_where_one_belongs(place: str, make: Callable[[Path], None]) -> None:
    Path(place).parent.mkdir(exist_ok=True)
    make(Path(place))
    assert error() == "error: data/mnist: a file is in this folder's way; move it away"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_no_file_where_one_belongs(make: Callable[[Path], None]) -> None:
    fill(TARGET)
    (TARGET / NAMES[1]).unlink()
    make(TARGET / NAMES[1])
    assert error() == f"error: data/mnist/{NAMES[1]}: not a file; move it away"


def test_an_unreadable_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: str) -> None:  # root may read what others may not
        raise PermissionError(13, "Permission denied", str(path))

    fill(TARGET)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError) as caught:
        download.main(Stage("download", "mnist"))
    assert str(caught.value) == f"data/mnist/{NAMES[0]}: Permission denied; make it readable, or move it away"


def test_a_link_to_itself() -> None:
    TARGET.mkdir(parents=True)
    (TARGET / NAMES[0]).symlink_to(NAMES[0])
    assert error().startswith(f"error: data/mnist/{NAMES[0]}: Too many levels of symbolic links; ")


def test_the_users_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_DATA_DIR", str(tmp_path / "missing"))
    assert error().startswith(f"error: DDPM_DATA_DIR={tmp_path}/missing: not a folder; ")


def test_a_fifo_in_the_users_folder_is_passed_over(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / NAMES[0]).unlink()
    os.mkfifo(mine / NAMES[0])
    other = fill(mine.with_name("other"))
    monkeypatch.setattr(download, "sources", lambda *_: [Folder(mine, "mine"), Folder(other, "other")])
    download.main(Stage("download", "mnist"))
    assert contents(TARGET) == FILES


def test_a_full_disk_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert error() == f"error: data/mnist/{NAMES[0]}: No space left on device"
    assert contents(TARGET) == {}


def test_missing_files_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert missing_files("mnist", tmp_path / "nowhere") == NAMES


def test_the_stage_reads_no_params(tmp_path: Path) -> None:
    """It runs where there is no params.yaml, and ends with one line and no traceback."""
    process = subprocess.run(
        [sys.executable, "-m", "stages.download"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr == "error: usage: python -m stages.download {mnist,fashion_mnist}\n"
