"""Storage servers on loopback for tests. What a server stores is a folder that tests can look into."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.with_dvc.dvc_clone import Clone

SECONDS_TO_START = 30


class Server:
    """A kind of remote; this one is a plain folder, which needs no process.

    url: what `dvc remote add` is given. settings: what `dvc remote modify --local` is given, and never committed.
    command: serves `root` on `port`.
    """

    program = ""  # what a machine must have

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.root = scratch / "storage"
        self.root.mkdir(parents=True)
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            self.port = server.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.url = str(self.root)
        self.settings: dict[str, str] = {}
        self.command: list[str] = []
        self.prepare(find(self.program) or "")

    def prepare(self, program: str) -> None:
        """Make keys and the like, and say how to reach the server."""

    def start(self) -> None:
        """Start, and return when the port answers."""
        if not self.command:
            return
        with (self.scratch / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"no answer\n{(self.scratch / 'server.log').read_text()}", pytrace=False)

    def stop(self) -> None:
        """End, with the processes that hold connections."""
        if self.process:
            for each in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                each.kill()
            self.process.wait()
            self.process = None

    def objects(self) -> list[Path]:
        """The stored objects, without the run cache."""
        return sorted(path for path in self.root.rglob("files/md5/*/*") if path.is_file())

    def connect(self, clone: Clone) -> None:
        """Make it the clone's default remote, as docs/how-to/share.md says."""
        clone.dvc("remote", "add", "--default", "--force", "storage", self.url)
        clone.dvc("remote", "modify", "storage", "verify", "true")
        for name, value in self.settings.items():
            clone.dvc("remote", "modify", "--local", "storage", name, value)


class Ssh(Server):
    """OpenSSH's sshd, its keys made for the test alone."""

    program = "sshd"

    def prepare(self, program: str) -> None:
        for key in ("host", "user"):
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
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{self.root}"
        self.settings = {"keyfile": str(self.scratch / "user"), "allow_agent": "false"}
        self.command = [program, "-D", "-e", "-f", str(self.scratch / "sshd_config")]


class S3(Server):
    """rclone's S3 server."""

    program = "rclone"

    def prepare(self, program: str) -> None:
        (self.root / "bucket").mkdir()
        address = f"127.0.0.1:{self.port}"
        self.url = "s3://bucket/ddpm"
        keys = {"access_key_id": "user", "secret_access_key": "secret-of-the-test"}
        self.settings = {"endpointurl": f"http://{address}", **keys}
        self.command = [program, "serve", "s3", "--auth-key", "user,secret-of-the-test", "--addr", address]
        self.command += ["--config", os.devnull, str(self.root)]


class WebDav(Server):
    """rclone's WebDAV server."""

    program = "rclone"

    def prepare(self, program: str) -> None:
        (self.root / "ddpm").mkdir()  # DVC does not make the remote's own folder here
        address = f"127.0.0.1:{self.port}"
        self.url = f"webdav://{address}/ddpm"
        self.settings = {"user": "user", "password": "secret-of-the-test"}
        self.command = [program, "serve", "webdav", "--user", "user", "--pass", "secret-of-the-test", "--addr", address]
        self.command += ["--config", os.devnull, str(self.root)]


SERVERS = {"folder": Server, "ssh": Ssh, "s3": S3, "webdav": WebDav}


def find(program: str) -> str | None:
    """Where a program is: daemons are not on every path, and rclone may come with the environment of the tests."""
    beside = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(program, path=beside)
