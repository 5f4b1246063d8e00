"""A real Slurm of two nodes on this machine, for tests.

Node n2 has process numbers of its own, as another machine has. All of it listens on loopback, and lives in one folder:
slurmctld, a slurmd for each node, and the munged that they trust.
"""

import contextlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "srun", "munged", "unshare")
SECONDS_TO_START = 30
CONFIG = """\
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
SelectTypeParameters=CR_CPU
MpiDefault=none
KillWait=5
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES
"""


@contextmanager
def two_nodes(folder: Path) -> Iterator[dict[str, str]]:
    """Run it, and give the environment that its commands need."""
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"  # daemons are not on every path
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, and apt-get install slurm-wlm munge: {', '.join(missing)}")
    for each in (folder, folder / "state"):
        each.mkdir(mode=0o700)
    (folder / "key").write_bytes(secrets.token_bytes(128))
    (folder / "key").chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, ports=free_ports(3), host=socket.gethostname().split(".")[0]))
    kept = {"SLURM_CONF": str(config)}
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/key"]
    munge += [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    apart = ["unshare", "--pid", "--mount-proc", "--kill-child", "slurmd", "-D", "-N", "n2"]
    environment = os.environ | kept | {"PATH": path}
    with ExitStack() as running, (folder / "log").open("ab") as log:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], apart):
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.kill)
            if command is munge:
                wait_until((folder / "munge.socket").exists, folder)
        idle = ["sinfo", "--noheader", "--states", "idle", "--format", "%D"]
        wait_until(lambda: subprocess.run(idle, env=environment, capture_output=True).stdout.strip() == b"2", folder)
        yield kept


def free_ports(count: int) -> list[int]:
    """Choose ports below those that the system gives to any program, such as the next srun."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with closing(socket.socket()) as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            found.append(port)
    return found


def wait_until(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"no Slurm\n{(folder / 'log').read_text()}", pytrace=False)
        time.sleep(0.1)
