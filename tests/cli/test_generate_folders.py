"""Where the images go: to a folder that is the run's own and can be written to, or nothing is drawn."""

import errno
import fcntl
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddpm.cli import generate
from ddpm.pipeline import files
from ddpm.pipeline.console import UserError
from tests.cli.generating import call, ended, started, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=False)


@pytest.fixture
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: object) -> None:
        raise AssertionError("it draws")

    monkeypatch.setattr(generate, "draw_batch", drawn)


def test_an_empty_folder_is_taken(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    call(model, tmp_path / "empty", "--count", 1)
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["000000.png"]


def test_missing_parents_are_made(model: Path, tmp_path: Path) -> None:
    out = call(model, tmp_path / "a/b/c", "--count", 1)
    assert (out / "000000.png").exists()


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_a_folder_with_anything_in_it_is_refused(model: Path, image_format: str, tmp_path: Path) -> None:
    out = tmp_path / "full"
    out.mkdir()
    (out / "000000.png").write_bytes(b"mine")
    with pytest.raises(UserError) as caught:
        call(model, out, "--format", image_format)
    assert str(caught.value) == f"--out {out}: exists and is not an empty folder; nothing was written"
    assert [path.name for path in out.iterdir()] == ["000000.png"]
    assert (out / "000000.png").read_bytes() == b"mine"


def test_a_file_in_the_place_of_the_folder_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        call(model, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_two_runs_into_one_folder_do_not_mix(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--model", model, "--out", out, "--count", 200, "--steps", 20, "--seed"]
    results = sorted(ended(run) for run in [started(*words, seed) for seed in (1, 2, 3)])
    assert [code for code, _, _ in results] == [0, 1, 1]
    for _, line, _ in results[1:]:
        assert re.fullmatch(f"error: (--out )?{out}: (another process is writing there|exists and is not an).*", line)
    assert len(list(out.iterdir())) == 200


@pytest.mark.usefixtures("nothing_is_drawn")
def test_a_folder_that_another_process_has_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    lock = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UserError, match=r"out: another process is writing there; name another folder$"):
        call(model, tmp_path / "out")
    os.close(lock)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.parametrize("image_format", ["png", "npz"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_drawn(
    code: int, image_format: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", refuse)
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            call(model, tmp_path / name, "--format", image_format)
        assert caught.value.filename == str(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_a_folder_that_cannot_be_made_is_found_before_anything_is_drawn(
    image_format: str, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        call(model, tmp_path / "file/out", "--format", image_format)


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_a_read_only_folder_is_found_before_anything_is_drawn(image_format: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(0o500)
    for folder in (tmp_path / "out", tmp_path / "out/new"):
        with pytest.raises(PermissionError, match="out"):
            call(model, folder, "--format", image_format)


@pytest.mark.usefixtures("nothing_is_drawn")
def test_a_disk_without_room_for_an_npz_is_found_before_anything_is_drawn(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate.shutil, "disk_usage", lambda _: SimpleNamespace(free=783_999))
    with pytest.raises(UserError, match=r"out: 783,999 bytes are free on its disk, and images\.npz may take 784,000$"):
        call(model, tmp_path / "out", "--format", "npz", "--count", 1000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_a_disk_that_fills_up_leaves_what_is_whole(
    image_format: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of png the pictures that were finished; of npz nothing."""
    whole = files.write_whole

    def filling(path: Path, data: bytes) -> None:
        if path.name in ("000003.png", "images.npz"):
            monkeypatch.setattr(files.os, "fsync", full)
        whole(path, data)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(generate, "write_whole", filling)
    with pytest.raises(OSError, match="No space left on device"):
        call(model, tmp_path / "out", "--count", 5, "--format", image_format)
    left = ["000000.png", "000001.png", "000002.png"] if image_format == "png" else []
    assert [path.name for path in sorted(tmp_path.glob("out/*"))] == left
