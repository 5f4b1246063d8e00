"""A real Slurm with two nodes: one training on both, and many experiments."""

import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.with_dvc.dvc_clone import LATE, SAMPLE, TRAIN, Clone, begun, left
from tests.with_dvc.slurm import free_ports, two_nodes

pytestmark = pytest.mark.long
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
    alive = (each for each in psutil.process_iter(["cwd", "status"]) if each.info["status"] != psutil.STATUS_ZOMBIE)
    return [each for each in alive if each.info["cwd"] == str(clone.path)]


def on(node: str) -> Callable[[Processes], Processes]:
    return lambda found: [each for each in found if each.environ().get("SLURMD_NODENAME") == node]


def named(name: str, count: int | None = None) -> Callable[[Processes], Processes]:
    return lambda found: sorted((each for each in found if each.name() == name), key=lambda each: each.pid)[:count]


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
    clone.run("dvc", "repro", "--force", "--single-item", "sample@scored")
    assert clone.bytes_under("data/samples") == samples, "one process makes the same of one model"
