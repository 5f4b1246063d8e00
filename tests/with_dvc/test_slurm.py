"""A real Slurm with two nodes: one training on both, and many experiments."""

import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from tests.with_dvc.dvc_clone import LATE, SAMPLE, SAVING, TRAIN, Clone, begun, copy_clone, left
from tests.with_dvc.slurm import free_ports, two_nodes

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
SECONDS_TO_END = 30
Processes = list[psutil.Process]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with two_nodes(tmp_path_factory.mktemp("two") / "slurm") as variables:
        yield variables


def both(slurm: dict[str, str]) -> dict[str, str]:
    """The environment for one process on each node."""
    meeting = f"--rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{free_ports(1)[0]}"
    return slurm | {"DDPM_LAUNCH": f"srun --nodes 2 --ntasks-per-node 1 torchrun --nnodes 2 {meeting}"}


def within(clone: Clone) -> Processes:
    """All processes that work in the clone, whichever node has started them."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        if process.info["cwd"] == str(clone.path) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def on(node: str) -> Callable[[Processes], Processes]:
    return lambda found: [each for each in found if each.environ().get("SLURMD_NODENAME") == node]


def named(name: str, count: int | None = None) -> Callable[[Processes], Processes]:
    return lambda found: sorted((each for each in found if each.name() == name), key=lambda each: each.pid)[:count]


def wait_for(condition: Callable[[], object], seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


KILLED: dict[str, Callable[[Processes], Processes]] = {
    "the second node": on("n2"),
    "torchrun alone": lambda found: [each for each in on("n2")(found) if "-m" not in each.cmdline()[:3]],
    "srun": named("srun", 1),
    "srun and its helper": named("srun"),
    "dvc": named("dvc"),
}


def test_two_nodes_train_and_sample_whatever_is_killed(clone: Clone, undisturbed: Clone, slurm: dict[str, str]) -> None:
    clone.edit_params(LATE)
    for what, chosen in KILLED.items():
        process = begun(clone, *TRAIN, **both(slurm))
        found = within(clone)
        assert all(on(node)(found) for node in ("n1", "n2"))
        victims = chosen(found)
        assert victims, what
        for each in victims:
            each.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + SECONDS_TO_END
        while remaining := within(clone):
            assert time.monotonic() < deadline, (what, remaining)
            time.sleep(0.1)
        process.communicate(timeout=1)
        assert process.returncode != 0
    printed = clone.run(*SAMPLE, **both(slurm))
    assert printed.count("train: continues") == 1, printed
    assert left(clone) == left(undisturbed)
    samples = clone.bytes_under("data/samples")
    clone.run("dvc", "repro", "--force", "--single-item", "sample@population")
    assert clone.bytes_under("data/samples") == samples, "one process makes the same of one model"


SIX = {
    f"seed-{seed}": f"--single-item train -S train.seed={seed} -S 'train.images={1000 * seed}'" for seed in range(1, 7)
}


def results(clone: Clone) -> dict[str, str]:
    """Return the tree of each experiment: its params, its metrics, and dvc.lock with the hashes of its outputs."""
    listed = clone.git("for-each-ref", "refs/exps", "--format", "%(refname:lstrip=-1) %(tree)")
    return dict(line.split() for line in listed.splitlines() if "seed-" in line)


def test_six_experiments_arrive_once_and_equal_those_of_one_machine(
    clone: Clone, slurm: dict[str, str], tmp_path: Path
) -> None:
    clone.dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    clone.commit()
    clone.dvc("push")
    clone.git("init", "--quiet", "--bare", str(tmp_path / "origin"))
    clone.git("remote", "add", "origin", str(tmp_path / "origin"))
    clone.git("push", "--quiet", "origin", "main")
    alone = copy_clone(clone, tmp_path / "alone")
    (clone.path / "list.txt").write_text("".join(f"{name} {given}\n" for name, given in SIX.items()))
    clone.run("bash", "scripts/experiments.sh", "list.txt", **SAVING, **slurm)
    started = clone.path / "build/experiments"
    wait_for(lambda: [*started.glob("*-6/clone/.resume/train-*.state")], 300)
    clone.run("scontrol", "requeue", f"{next(started.glob('*-6')).name.replace('-', '_')}", **slurm)
    for name, given in SIX.items():
        alone.run("dvc", "exp", "run", "--name", name, *shlex.split(given))
    wait_for(lambda: not clone.run("squeue", "--noheader", **slurm), 300)
    logs = {log.stem: log.read_text() for log in started.glob("*.log")}
    assert ["train: continues" in log for _, log in sorted(logs.items())] == [False] * 5 + [True], logs
    assert [*started.iterdir()] == [*started.glob("*.log")], "no clone is left"

    clone.dvc("exp", "pull", "origin")
    assert results(clone) == results(alone)
    assert results(clone).keys() == SIX.keys()
    names = [line.split(",")[0] for line in clone.dvc("exp", "show", "--csv").splitlines()]
    assert sorted(name for name in names if name in SIX) == [*SIX]
    for tree in results(alone).values():
        outs = YAML(typ="safe").load(alone.git("show", f"{tree}:dvc.lock"))["stages"]["train"]["outs"]
        (model,) = [out["md5"] for out in outs if out["path"] == "models/ddpm.safetensors"]
        paths = [each.path / ".dvc/cache/files/md5" / model[:2] / model[2:] for each in (clone, alone)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
