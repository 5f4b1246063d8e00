"""Storage servers on loopback that tests start and stop. What a server stores is a folder that tests can look into."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from tests.with_dvc.dvc_clone import Clone

SECONDS_TO_START = 30


class Server:
    """A kind of remote; this one is a plain folder, which needs no process."""

    kind: ClassVar[str] = "folder"
    program: ClassVar[str | None] = None  # what a machine must have

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.root = scratch / "storage"
        self.root.mkdir(parents=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.prepare()

    def prepare(self) -> None:
        """Make keys and the like."""

    @property
    def url(self) -> str:
        """What `dvc remote add` is told."""
        return str(self.root)

    @property
    def settings(self) -> dict[str, str]:
        """What `dvc remote modify --local` is told; none of it is ever committed."""
        return {}

    @property
    def wrong(self) -> dict[str, str]:
        """Settings with which the server turns a user away."""
        return {}

    def command(self) -> list[str] | None:
        """What serves `root` on `port`."""
        return None

    def start(self) -> None:
        """Start, and return when the port answers."""
        command = self.command()
        if command is None:
            return
        with (self.scratch / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"{self.kind}: no answer\n{(self.scratch / 'server.log').read_text()}", pytrace=False)

    def stop(self) -> None:
        """Die, as in a power cut."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def objects(self) -> list[Path]:
        """The stored objects, without the run cache."""
        return sorted(path for path in self.root.rglob("files/md5/*/*") if path.is_file())

    def connect(self, clone: Clone, settings: dict[str, str] | None = None) -> None:
        """Make it the clone's default remote, as `make remote` does."""
        clone.dvc("remote", "add", "--default", "--force", "storage", self.url)
        clone.dvc("remote", "modify", "storage", "verify", "true")
        for name, value in (self.settings if settings is None else settings).items():
            clone.dvc("remote", "modify", "--local", "storage", name, value)


class Ssh(Server):
    """OpenSSH's sshd, its keys made for the test alone."""

    kind = "ssh"
    program = "sshd"

    def prepare(self) -> None:
        for key in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.scratch / key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        shutil.copy(self.scratch / "user.pub", self.scratch / "authorized_keys")
        (self.scratch / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.scratch}/host\nPidFile none\n"
            f"AuthorizedKeysFile {self.scratch}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, which a boot would have made

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{self.root}"

    @property
    def settings(self) -> dict[str, str]:
        return {"keyfile": str(self.scratch / "user"), "allow_agent": "false"}

    @property
    def wrong(self) -> dict[str, str]:
        return {"keyfile": str(self.scratch / "stranger"), "allow_agent": "false"}

    def command(self) -> list[str]:
        sshd = find("sshd")
        assert sshd is not None
        return [sshd, "-D", "-e", "-f", str(self.scratch / "sshd_config")]

    def stop(self) -> None:
        """End the connections as well: each has a process of its own, in sshd's group."""
        if self.process:
            for pid in children(self.process.pid):
                os.kill(pid, 9)
        super().stop()


class S3(Server):
    """rclone's S3 server."""

    kind = "s3"
    program = "rclone"

    def prepare(self) -> None:
        (self.root / "bucket").mkdir()

    @property
    def url(self) -> str:
        return "s3://bucket/ddpm"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "endpointurl": f"http://127.0.0.1:{self.port}",
            "access_key_id": "user",
            "secret_access_key": "secret-of-the-test",
        }

    @property
    def wrong(self) -> dict[str, str]:
        return self.settings | {"secret_access_key": "guessed"}

    def command(self) -> list[str]:
        rclone = find("rclone")
        assert rclone is not None
        keys = ["--auth-key", "user,secret-of-the-test"]
        return [
            rclone,
            "serve",
            "s3",
            *keys,
            "--addr",
            f"127.0.0.1:{self.port}",
            "--config",
            os.devnull,
            str(self.root),
        ]


class WebDav(Server):
    """rclone's WebDAV server."""

    kind = "webdav"
    program = "rclone"

    def prepare(self) -> None:
        (self.root / "ddpm").mkdir()  # DVC does not make the remote's own folder here

    @property
    def url(self) -> str:
        return f"webdav://127.0.0.1:{self.port}/ddpm"

    @property
    def settings(self) -> dict[str, str]:
        return {"user": "user", "password": "secret-of-the-test"}

    @property
    def wrong(self) -> dict[str, str]:
        return self.settings | {"password": "guessed"}

    def command(self) -> list[str]:
        rclone = find("rclone")
        assert rclone is not None
        keys = ["--user", "user", "--pass", "secret-of-the-test"]
        # Else an upload that is cut off leaves a part under the object's name, which DVC takes for the whole.
        keys += ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--cache-dir", str(self.scratch / "cache")]
        address = ["--addr", f"127.0.0.1:{self.port}", "--config", os.devnull]
        return [rclone, "serve", "webdav", *keys, *address, str(self.root)]


SERVERS = {server.kind: server for server in (Server, Ssh, S3, WebDav)}


def find(program: str) -> str | None:
    """Where a program is: daemons are not on every path, and rclone may come with the environment of the tests."""
    beside = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(program, path=beside)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def children(pid: int) -> list[int]:
    """All processes below one."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    below = [pid]
    for parent in below:
        below += [child for child, its_parent in parents if its_parent == parent]
    return below[1:]
