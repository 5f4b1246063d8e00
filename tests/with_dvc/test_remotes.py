"""Sharing through real remotes: servers that the tests start on loopback, stop in the middle, and let go bad."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import Clone, git_clone, ran
from tests.with_dvc.servers import SERVERS, Server, find

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
TRAIN = "data/processed/train.safetensors"  # 48 MB, the largest


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    kind = SERVERS[request.param]
    if kind.program and not find(kind.program):
        pytest.skip(f"{kind.program} is not installed")
    server = kind(tmp_path / "server")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pushed(server: Server, clone: Clone) -> Clone:
    """A clone that has pushed everything there, and committed the remote."""
    server.connect(clone)
    clone.dvc("push", "--run-cache")
    clone.commit()
    return clone


def fresh_clone(source: Clone, server: Server, folder: Path, settings: dict[str, str] | None = None) -> Clone:
    """What another person has after git clone and after telling DVC the credentials."""
    fresh = git_clone(source, folder)
    server.connect(fresh, settings)
    return fresh


def interrupted(clone: Clone, server: Server, *command: str, started: Path) -> str:
    """What dvc prints when the server dies as soon as there is something under `started`; it must fail."""
    process = clone.start("dvc", *command, AWS_MAX_ATTEMPTS="1")  # else the S3 client tries again for a minute
    deadline = time.monotonic() + 120
    while not any(path.is_file() and path.stat().st_size for path in started.rglob("*")):
        assert process.poll() is None, f"too fast to be interrupted:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    server.stop()
    printed, _ = process.communicate(timeout=600)
    assert process.returncode != 0, printed
    return printed


def test_a_fresh_clone_has_everything(pushed: Clone, server: Server, tmp_path: Path) -> None:
    fresh = fresh_clone(pushed, server, tmp_path / "fresh")
    fresh.dvc("pull", "--run-cache")
    assert fresh.bytes_under("data", "models") == pushed.bytes_under("data", "models")
    assert not ran(fresh.dvc("repro"))
    assert "up to date" in fresh.dvc("status")
    assert "in sync" in fresh.dvc("status", "--cloud")


def test_a_damaged_object_is_refused(pushed: Clone, server: Server, tmp_path: Path) -> None:
    fresh = fresh_clone(pushed, server, tmp_path / "fresh")
    model = pushed.path / "models/ddpm.safetensors"
    (stored,) = [path for path in server.objects() if path.read_bytes() == model.read_bytes()]
    stored.chmod(0o644)
    damaged = bytearray(stored.read_bytes())
    damaged[-1] ^= 1
    stored.write_bytes(damaged)
    printed = fresh.run("dvc", "pull", code=1)
    assert "models/ddpm.safetensors" in printed or "corrupted" in printed, printed
    assert not (fresh.path / "models/ddpm.safetensors").exists()
    assert all(data != bytes(damaged) for data in fresh.bytes_under(".dvc/cache").values())
    # The rest is there, and what is damaged can be made again.
    assert (fresh.path / TRAIN).exists()


def test_a_server_that_dies_costs_a_second_try(clone: Clone, server: Server, tmp_path: Path) -> None:
    if server.command() is None:
        pytest.skip("a folder has no server that could die")
    server.connect(clone)
    clone.commit()
    interrupted(clone, server, "push", "--jobs", "1", started=server.root)
    server.start()
    clone.dvc("push", "--run-cache")
    fresh = fresh_clone(clone, server, tmp_path / "fresh")
    interrupted(fresh, server, "pull", "--jobs", "1", started=fresh.path / ".dvc/cache")
    complete = clone.bytes_under("data", "models")
    assert all(complete[name] == data for name, data in fresh.bytes_under("data", "models").items())
    server.start()
    fresh.dvc("pull", "--run-cache")
    assert fresh.bytes_under("data", "models") == complete


def test_wrong_credentials_are_an_error_and_nothing_is_lost(clone: Clone, server: Server) -> None:
    if not server.wrong:
        pytest.skip("a folder has no credentials")
    server.connect(clone, server.wrong)
    before = clone.bytes_under("data", "models")
    printed = clone.run("dvc", "push", code=255)
    assert "Traceback" not in printed
    assert "ERROR" in printed
    assert clone.bytes_under("data", "models") == before
    assert not server.objects()
    server.connect(clone)
    clone.dvc("push")
    assert server.objects()


def test_credentials_stay_out_of_git(pushed: Clone, server: Server) -> None:
    for name in server.settings:
        assert name not in pushed.git("grep", "--cached", "-I", "", "--", ".dvc")
    assert "config.local" not in pushed.git("ls-files", ".dvc") + pushed.git("status", "--short")
