"""What `make verify` says of what kills and merges leave, and of a user's own data."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.scripts.small_repository import (
    break_off,
    cached,
    object_of,
    overwrite,
    verify,
)
from tests.with_dvc.dvc_clone import Clone

pytestmark = pytest.mark.pipeline


def test_a_lock_by_hard_links_outlives_a_kill(clone: Clone) -> None:
    clone.dvc("config", "core.hardlink_lock", "true")
    for name in ("lock", "rwlock.lock"):
        (clone.path / ".dvc/tmp" / name).unlink(missing_ok=True)
    (clone.path / "stage.py").write_text("import time; time.sleep(600)")
    process = clone.start("dvc", "repro")
    deadline = time.monotonic() + 120
    while not (clone.path / ".dvc/tmp/lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    clone.git("checkout", "--quiet", "stage.py")
    assert "Unable to acquire lock" in clone.dvc("status", code=255)
    assert ".dvc/tmp/lock: left by a killed dvc; delete it, when no dvc runs" in verify(clone, 1)
    (clone.path / ".dvc/tmp/lock").unlink()
    (clone.path / ".dvc/tmp/rwlock.lock").unlink(missing_ok=True)
    verify(clone)


def test_a_lock_of_git(clone: Clone) -> None:
    lock = clone.path / ".git/index.lock"
    lock.touch()
    verify(clone)  # a moment old, it may be somebody's
    os.utime(lock, (0, 0))
    clone.dvc("exp", "run", "-S", "lr=1e-4", code=255)
    assert ".git/index.lock: left by a killed git or dvc; delete it, when neither runs" in verify(clone, 1)


def test_a_damaged_database(clone: Clone) -> None:
    clone.dvc("status")
    for file in clone.path.parent.glob("site/repo/*/*/local/cache.db"):
        break_off(file)
    assert "database disk image is malformed" in clone.dvc("status", code=255)
    said = f"  {clone.path.parent}/site/repo: DVC's database is damaged (database disk image is malformed); delete it,"
    assert said in verify(clone, 1)
    shutil.rmtree(clone.path.parent / "site/repo")
    clone.dvc("status")
    verify(clone)


def test_a_password_that_dvc_cannot_write(clone: Clone) -> None:
    clone.dvc("remote", "add", "dav", "webdavs://host/path")
    clone.dvc("remote", "modify", "--local", "dav", "user", "me")
    clone.dvc("remote", "modify", "--local", "dav", "password", "p\xe4ssword", code=255)
    assert ".dvc/config.local: empty; delete it, and set anew what it held" in verify(clone, 1)
    clone.dvc("remote", "modify", "--local", "dav", "password", "%(x)s", code=255)
    assert ".dvc/config.local: DVC cannot read it; delete it, and set anew what it held" in verify(clone, 1)
    (clone.path / ".dvc/config.local").unlink()
    verify(clone)


# What a merge leaves --------------------------------------------------------------------------------------------------


def test_conflicts_are_named_and_mended(clone: Clone) -> None:
    clone.git("branch", "theirs")
    for branch, lr in (("theirs", "0.5"), ("main", "0.25")):
        clone.git("checkout", "--quiet", branch)
        (clone.path / "params.yaml").write_text(f"lr: {lr}\n")
        clone.dvc("repro")
        clone.commit()
    assert "CONFLICT" in clone.run("git", "merge", "theirs", code=1)
    printed = verify(clone, 1)
    assert "error: 5 damaged" in printed
    assert "  params.yaml: a merge conflict of git; keep one side of it, and delete the lines of <<<<<<<" in printed
    for file in ("dvc.lock", "metrics/one.json", "metrics/x.json", "metrics/y.json"):
        said = f"  {file}: a merge conflict of git; `git checkout --ours {file}`, or --theirs, of all the same"
        assert said in printed
        clone.git("checkout", "--ours", file)
    (clone.path / "params.yaml").write_text("lr: 0.25\n")
    clone.dvc("repro")
    verify(clone)


@pytest.mark.parametrize("name", ["dvc.lock", "metrics/one.json"])
def test_a_committed_conflict_is_deleted(clone: Clone, name: str) -> None:
    text = (clone.path / name).read_text()
    (clone.path / name).write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> theirs\n")
    clone.commit()
    assert f"error: 1 damaged\n  {name}: a merge conflict of git; " in verify(clone, 1)
    (clone.path / name).unlink()
    clone.dvc("repro")
    verify(clone)


# The user's own data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["data/single", "data/mine/deep/2"])
def test_own_data_is_mended_from_the_cache(clone: Clone, path: str) -> None:
    added = path.removesuffix("/deep/2")
    text = (clone.path / path).read_text()
    overwrite(clone.path / path, "other")
    said = f"  {path}: not what {added}.dvc records; `dvc add {added}` if you changed it, else delete it, then "
    assert f"{said}`dvc checkout {added}`\n" in verify(clone, 1)
    (clone.path / path).unlink()
    if path != added:
        assert f"  {path}: not there; " in verify(clone, 1)
    clone.dvc("checkout", added)
    assert (clone.path / path).read_text() == text
    verify(clone)


def test_own_data_is_mended_from_the_remote(clone: Clone) -> None:
    stored = object_of(clone, "data/single.dvc", "single")
    overwrite(clone.path / "data/single", "other")
    overwrite(stored, "damaged")
    printed = verify(clone, 1)
    assert "error: 2 damaged" in printed
    assert "  data/single: not what data/single.dvc records; " in printed
    assert "else delete it, then `dvc pull data/single`\n" in printed
    assert (
        f"  {stored.relative_to(clone.path)}: damaged; delete it, then `dvc pull` or `dvc add data/single`" in printed
    )
    stored.unlink()
    (clone.path / "data/single").unlink()
    clone.dvc("pull", "data/single")
    verify(clone)


@pytest.mark.parametrize("added", ["data/single", "data/mine"])
def test_an_object_is_made_from_whole_data(clone: Clone, added: str) -> None:
    text = (clone.path / f"{added}.dvc").read_text()
    stored = object_of(clone, f"{added}.dvc", Path(added).name)
    if added == "data/mine":
        stored = cached(clone, json.loads(stored.read_text())[0]["md5"])
    overwrite(stored, "damaged")
    assert f": damaged; delete it, then `dvc pull` or `dvc add {added}`, if that is whole\n" in verify(clone, 1)
    stored.unlink()
    clone.dvc("add", added)
    assert stored.exists()
    assert (clone.path / f"{added}.dvc").read_text() == text
    verify(clone)


def test_a_folder_without_its_listing_is_not_checked(clone: Clone) -> None:
    object_of(clone, "data/mine.dvc", "mine").unlink()
    overwrite(clone.path / "data/mine/1", "other")
    assert "data/mine: not checked, since its listing is not in the cache; `dvc pull data/mine`\n" in verify(clone)


def test_a_folder_that_is_not_here_is_no_damage(clone: Clone) -> None:
    shutil.rmtree(clone.path / "data/mine")
    assert "1 of 8 outputs are not here, which is no damage" in verify(clone)
