"""Sharing through a remote, as docs/how-to/share.md says: what arrives is whole, and no secret is tracked by git."""

from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import Clone, git_clone, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
MODEL = "models/ddpm.safetensors"


def connect(clone: Clone, url: str) -> None:
    clone.dvc("remote", "add", "--default", "--force", "storage", url)
    clone.dvc("remote", "modify", "storage", "verify", "true")


def test_a_fresh_clone_has_everything_and_no_damaged_object(clone: Clone, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    connect(clone, str(storage))
    clone.dvc("push", "--run-cache")
    clone.commit()
    fresh = git_clone(clone, tmp_path / "fresh")
    fresh.dvc("pull", "--run-cache")
    artifacts = clone.bytes_under("data", "models")
    assert fresh.bytes_under("data", "models") == artifacts
    assert not ran(fresh.dvc("repro"))

    objects = [path for path in storage.rglob("files/md5/*/*") if path.is_file()]
    (stored,) = [path for path in objects if path.read_bytes() == artifacts[MODEL]]
    damaged = bytearray(artifacts[MODEL])
    damaged[-1] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(damaged)
    another = git_clone(clone, tmp_path / "another")
    another.dvc("pull", MODEL, "data/samples/gallery.safetensors", code=1)
    assert another.bytes_under("data/samples", "models").keys() == {"data/samples/gallery.safetensors"}
    assert damaged not in another.bytes_under(".dvc/cache").values()


def test_no_credentials_are_tracked_by_git(clone: Clone) -> None:
    connect(clone, "s3://bucket/ddpm")
    clone.dvc("remote", "modify", "--local", "storage", "secret_access_key", "hush")
    clone.commit()
    tracked = clone.git("grep", "--cached", "-I", "", "--", ".dvc")
    assert "s3://bucket" in tracked
    assert "hush" not in tracked
    assert "hush" in (clone.path / ".dvc/config.local").read_text()
