"""What `make verify` says of a small repository that a bad disk, a kill, a merge or its user has damaged.

tests/with_dvc/test_verify.py has the pipeline itself.
"""

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from ddpm.pipeline.console import UserError
from scripts import verify as script
from tests.scripts.small_repository import OUTPUT, UNPRIVILEGED, bind, break_off, object_of, overwrite, verify
from tests.with_dvc.dvc_clone import Clone, environment

pytestmark = pytest.mark.pipeline
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and capabilities")


def test_all_is_whole(clone: Clone) -> None:
    assert "8 outputs and 9 cached objects are whole" in verify(clone)
    assert not clone.git("status", "--porcelain")


@linux
def test_a_read_error_is_named_and_the_rest_is_checked(clone: Clone) -> None:
    (clone.path / OUTPUT).unlink()
    (clone.path / OUTPUT).symlink_to("/proc/self/mem")  # whose first byte cannot be read
    overwrite(clone.path / "made/y.bin", "other")
    printed = verify(clone, 1)
    assert "error: 2 damaged" in printed
    assert f"  {OUTPUT}: cannot be read (Input/output error); delete it, then `dvc checkout {OUTPUT}`\n" in printed
    assert "  made/y.bin: not what dvc.lock records; delete it, then `dvc checkout made/y.bin`" in printed


@linux
@pytest.mark.parametrize("path", [OUTPUT, "made", ".dvc/cache/files/md5", "dvc.lock", "data/mine", ".dvc/tmp/rwlock"])
def test_what_may_not_be_read_is_named_and_the_rest_is_checked(clone: Clone, path: str) -> None:
    overwrite(clone.path / "data/single", "other")
    (clone.path / path).chmod(0)
    try:
        printed = verify(clone, 1, "python", "-c", UNPRIVILEGED)
    finally:
        (clone.path / path).chmod(0o755)
    assert f"  {path}" in printed
    assert "(Permission denied)" in printed or "cannot be read: Permission denied" in printed
    assert "  data/single: not what data/single.dvc records; " in printed


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Path.mkdir, "a folder where a file belongs"),
        (os.mkfifo, "a pipe where a file belongs"),
        (bind, "a socket where a file belongs"),
        (lambda path: path.symlink_to("/dev/null"), "a device where a file belongs"),
        (lambda path: path.symlink_to("nothing"), "a link to nothing, which is not there"),
        (lambda path: path.symlink_to(path.name), "cannot be read (Too many levels of symbolic links)"),
    ],
)
@pytest.mark.parametrize("where", ["output", "object", "member"])
def test_what_is_no_file_is_damage(clone: Clone, made: Callable[[Path], object], said: str, where: str) -> None:
    path = {"output": clone.path / OUTPUT, "member": clone.path / "data/mine/1"}.get(where)
    path = path or object_of(clone, "dvc.lock", OUTPUT)
    path.unlink()
    made(path)
    printed = verify(clone, 1)
    assert f"error: 1 damaged\n  {path.relative_to(clone.path)}: {said}; delete it, then `dvc " in printed


def test_a_link_to_the_cache_is_no_damage(clone: Clone) -> None:
    (clone.path / OUTPUT).unlink()
    (clone.path / OUTPUT).symlink_to(object_of(clone, "dvc.lock", OUTPUT))
    verify(clone)


@pytest.mark.parametrize("path", ["made", "data/mine", ".dvc/cache/files/md5"])
def test_a_file_in_the_way_of_a_folder(clone: Clone, path: str) -> None:
    shutil.rmtree(clone.path / path)
    (clone.path / path).write_text("in the way")
    assert f"  {path}" in verify(clone, 1)


# What DVC refuses -----------------------------------------------------------------------------------------------------


def test_a_cut_that_dvc_refuses_is_found(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(clone.path.parent).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(clone.path)
    lock = Path("dvc.lock")
    text = lock.read_bytes()
    refused, passed = 0, []
    for cut in random.Random(0).sample(range(len(text)), 400):
        lock.write_bytes(text[:cut])
        if by_dvc := refusal():
            refused += 1
            try:
                script.main()
            except UserError as error:
                if "  dvc.lock: " in str(error):
                    continue
            passed.append((by_dvc, text[:cut][-60:]))
    assert refused > 50
    assert not passed


def refusal() -> str:
    try:
        with Repo() as repo:
            repo.status()
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "text", ["", "stages: [1]", "schema: '2.0'\nstages: {one: {cmd: x, outs: [{path: x}]}}", "\0", "{"]
)
def test_a_damaged_lock_is_one_line(clone: Clone, text: str) -> None:
    (clone.path / "dvc.lock").write_text(text)
    *_, header, line = verify(clone, 1).splitlines()
    assert header == "error: 1 damaged"
    assert line.startswith(("  dvc.lock: not as DVC writes it: ", "  dvc.lock: not valid YAML: "))
    assert line.endswith("; `git checkout dvc.lock`, or delete it: `dvc repro` makes it anew")
    (clone.path / "dvc.lock").unlink()
    clone.dvc("repro")
    verify(clone)


def test_without_a_lock_it_says_what_to_do(clone: Clone) -> None:
    (clone.path / "dvc.lock").unlink()
    assert "  dvc.lock: no such file; run this at the top of the repository; `git checkout dvc.lock`" in verify(
        clone, 1
    )


@pytest.mark.parametrize("name", ["dvc.lock", "data/single.dvc"])
def test_a_cut_of_the_last_letter_is_found_though_dvc_does_not_mind(clone: Clone, name: str) -> None:
    text = (clone.path / name).read_text()
    (clone.path / name).write_text(text[:-2])
    clone.dvc("status")
    assert f"  {name}: not as DVC writes it: its last line is cut off; `git checkout {name}`" in verify(clone, 1)


@pytest.mark.parametrize("text", ["", "outs:\n- md5: 6d7fce9fee47119\n", "outs: [{path: single}", "\0", "wdir: ..\n"])
def test_a_cut_record_of_an_own_file(clone: Clone, text: str) -> None:
    (clone.path / "data/single.dvc").write_text(text)
    printed = verify(clone, 1)
    assert "  data/single.dvc: not " in printed
    assert "; `git checkout data/single.dvc`, or delete it: `dvc add data/single` makes it anew\n" in printed
    (clone.path / "data/single.dvc").unlink()
    clone.dvc("add", "data/single")
    verify(clone)


def test_what_else_dvc_refuses_is_in_its_words(clone: Clone) -> None:
    (clone.path / "dvc.yaml").write_text("stages: [1]")
    assert "DVC refuses its files: './dvc.yaml' validation failed" in verify(clone, 1)


# What a kill leaves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["", '{"write": {}, "re', '{"write": {"a": 1}}'])
def test_a_cut_rwlock(clone: Clone, left: str) -> None:
    rwlock = clone.path / ".dvc/tmp/rwlock"
    rwlock.write_text(left)
    clone.dvc("status", code=1)
    assert "error: 1 damaged\n  .dvc/tmp/rwlock: cut off; delete it, when no dvc runs\n" in verify(clone, 1)
    rwlock.unlink()
    clone.dvc("status")
    verify(clone)


def test_cut_files_of_the_queue(clone: Clone) -> None:
    clone.dvc("exp", "run", "--queue", "-S", "lr=1e-4")
    folder = clone.path / ".dvc/tmp/exps"
    files = [folder / "rwlock", *folder.glob("celery/broker/*/*")]
    assert len(files) > 2
    verify(clone)
    for file in files:
        break_off(file)
    clone.dvc("queue", "status", code=255)
    printed = verify(clone, 1)
    for file in files:
        assert f"  {file.relative_to(clone.path)}: cut off; delete it, when no dvc runs\n" in printed
        file.unlink()
    clone.dvc("queue", "status")
    verify(clone)


@pytest.mark.parametrize("cut", [True, False])
def test_a_run_that_was_not_kept_whole(clone: Clone, cut: bool) -> None:
    """DVC makes a folder, then a file under another name, which it moves; and takes the newest for the run."""
    for file in (clone.path / ".dvc/cache/runs").glob("*/*/*"):
        text = file.read_text()
        file.unlink()
        if cut:
            (file.parent / "half").write_text(text[: text.index("outs:")])
    (clone.path / "dvc.lock").unlink()
    assert "failed to reproduce 'one'" in clone.dvc("repro", code=255)
    clone.git("checkout", "--quiet", "dvc.lock")
    faults = [line for line in verify(clone, 1).splitlines() if "delete this folder, when no dvc runs" in line]
    assert len(faults) == 3
    for line in faults:
        shutil.rmtree(clone.path / line.split(":")[0].strip())
    (clone.path / "dvc.lock").unlink()
    clone.dvc("repro")
    verify(clone)
