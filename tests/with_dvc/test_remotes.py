"""Sharing through real remotes: servers that the tests start on loopback, stop in the middle, and let go bad."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import Clone, git_clone, ran
from tests.with_dvc.servers import SERVERS, Server, find

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    kind = SERVERS[request.param]
    if kind.program and not find(kind.program):
        pytest.skip(f"{kind.program} is not installed")
    server = kind(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def artifacts(clone: Clone) -> dict[str, bytes]:
    return clone.bytes_under("data", "models")


def fresh_clone(source: Clone, server: Server, folder: Path) -> Clone:
    """What another person has after git clone and after telling DVC the credentials."""
    fresh = git_clone(source, folder)
    server.connect(fresh)
    return fresh


def interrupt(clone: Clone, server: Server, *command: str, started: Path) -> None:
    """Let the server die as soon as there is something under `started`: dvc must fail. Then start it again."""
    process = clone.start("dvc", *command, "--jobs", "1", AWS_MAX_ATTEMPTS="1")  # else S3's client tries for a minute
    deadline = time.monotonic() + 120
    while not any(path.is_file() and path.stat().st_size for path in started.rglob("*")):
        assert process.poll() is None, f"too fast to be interrupted:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    server.stop()
    printed, _ = process.communicate(timeout=600)
    assert process.returncode != 0, printed
    server.start()


def test_a_fresh_clone_has_everything_and_no_damaged_object(clone: Clone, server: Server, tmp_path: Path) -> None:
    server.connect(clone)
    clone.dvc("push", "--run-cache")
    clone.commit()
    fresh = fresh_clone(clone, server, tmp_path / "fresh")
    fresh.dvc("pull", "--run-cache")
    assert artifacts(fresh) == artifacts(clone)
    assert not ran(fresh.dvc("repro"))
    assert "in sync" in fresh.dvc("status", "--cloud")

    model = "models/ddpm.safetensors"
    (stored,) = [path for path in server.objects() if path.read_bytes() == (clone.path / model).read_bytes()]
    stored.chmod(0o644)
    damaged = bytearray(stored.read_bytes())
    damaged[-1] ^= 1
    stored.write_bytes(damaged)
    another = fresh_clone(clone, server, tmp_path / "another")
    another.run("dvc", "pull", code=1)
    assert all(data != damaged for data in another.bytes_under(".dvc/cache").values())
    assert artifacts(another).keys() == artifacts(clone).keys() - {model}


def test_a_server_that_dies_costs_a_second_try(clone: Clone, server: Server, tmp_path: Path) -> None:
    if not server.command:
        pytest.skip("a folder has no server that could die")
    server.connect(clone)
    clone.commit()
    interrupt(clone, server, "push", started=server.root)
    clone.dvc("push")
    fresh = fresh_clone(clone, server, tmp_path / "fresh")
    interrupt(fresh, server, "pull", started=fresh.path / ".dvc/cache")
    assert artifacts(fresh).items() <= artifacts(clone).items()
    fresh.dvc("pull")
    assert artifacts(fresh) == artifacts(clone)


def test_credentials_stay_out_of_git_and_wrong_ones_are_an_error(clone: Clone, server: Server) -> None:
    if not server.wrong:
        pytest.skip("a folder has no credentials")
    server.connect(clone, server.wrong)
    printed = clone.run("dvc", "push", code=255)
    assert "ERROR" in printed
    assert "Traceback" not in printed
    assert not server.objects()
    server.connect(clone)
    clone.dvc("push")
    assert server.objects()
    clone.commit()
    tracked = clone.git("grep", "--cached", "-I", "", "--", ".dvc")
    assert "storage" in tracked
    assert not [name for name in server.settings if name in tracked]
