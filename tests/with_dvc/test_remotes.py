"""Sharing through a real remote: the S3 server of rclone, on loopback."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import Clone, git_clone, ran
from tests.with_dvc.slurm import free_ports

pytestmark = pytest.mark.long
KEYS = {"access_key_id": "user", "secret_access_key": "secret-of-the-test"}
RCLONE = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a server that stores in the folder `storage`."""
    if not RCLONE:
        pytest.skip("rclone is not installed")
    (tmp_path / "storage/bucket").mkdir(parents=True)
    port = free_ports(1)[0]
    serve = [RCLONE, "serve", "s3", "--auth-key", ",".join(KEYS.values()), "--addr", f"127.0.0.1:{port}"]
    server = subprocess.Popen([*serve, "--config", os.devnull, str(tmp_path / "storage")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


def connect(clone: Clone, address: str) -> Clone:
    """Make it the clone's default remote, as docs/how-to/share.md says."""
    clone.dvc("remote", "add", "--default", "--force", "storage", "s3://bucket/ddpm")
    for name, value in {"endpointurl": address, **KEYS}.items():
        clone.dvc("remote", "modify", "--local", "storage", name, value)
    return clone


def test_a_fresh_clone_has_everything_and_no_credentials(clone: Clone, address: str, tmp_path: Path) -> None:
    connect(clone, address).dvc("push", "--run-cache")
    clone.commit()
    tracked = clone.git("grep", "--cached", "-I", "", "--", ".dvc")
    assert "storage" in tracked
    assert not [name for name in KEYS if name in tracked]

    fresh = connect(git_clone(clone, tmp_path / "fresh"), address)
    fresh.dvc("pull", "--run-cache")
    artifacts = clone.bytes_under("data", "models")
    assert fresh.bytes_under("data", "models") == artifacts
    assert not ran(fresh.dvc("repro"))
