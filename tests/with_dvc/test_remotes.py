"""Sharing through real remotes: one of each kind, on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import Clone, git_clone, ran
from tests.with_dvc.servers import SERVERS, Server, find

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
MODEL = "models/ddpm.safetensors"


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    kind = SERVERS[request.param]
    if kind.program and not find(kind.program):
        pytest.skip(f"{kind.program} is not installed")
    server = kind(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_a_fresh_clone_has_everything_no_damaged_object_and_no_credentials(
    clone: Clone, server: Server, tmp_path: Path
) -> None:
    server.connect(clone)
    clone.dvc("push", "--run-cache")
    clone.commit()
    tracked = clone.git("grep", "--cached", "-I", "", "--", ".dvc")
    assert "storage" in tracked
    assert not [name for name in server.settings if name in tracked]

    fresh = git_clone(clone, tmp_path / "fresh")
    server.connect(fresh)
    fresh.dvc("pull", "--run-cache")
    artifacts = clone.bytes_under("data", "models")
    assert fresh.bytes_under("data", "models") == artifacts
    assert not ran(fresh.dvc("repro"))

    (stored,) = [path for path in server.objects() if path.read_bytes() == artifacts[MODEL]]
    damaged = bytearray(artifacts[MODEL])
    damaged[-1] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(damaged)
    another = git_clone(clone, tmp_path / "another")
    server.connect(another)
    another.dvc("pull", MODEL, "data/samples/gallery.safetensors", code=1)
    assert another.bytes_under("data/samples", "models").keys() == {"data/samples/gallery.safetensors"}
    assert damaged not in another.bytes_under(".dvc/cache").values()
