"""Several processes: how many are wanted, and what becomes of all when one of them ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ddpm.parallel.launch import on_several_machines, shared_out, wanted_processes

from ddpm.parallel import launch as launching
from ddpm.pipeline.console import UserError

REPOSITORY = Path(__file__).parents[2]
SECONDS = 120  # on a busy machine
LAUNCH = """
import torch
from ddpm.pipeline.console import run
from ddpm.parallel.launch import launch, on_several_machines
from ddpm.pipeline.process import arm
arm()
{}
run(lambda: launch({}, "job", {}, several_machines={} and on_several_machines()))
{}
"""
IGNORING = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
JOB = """
import os, signal, sys, time, torch
from pathlib import Path
from ddpm.parallel.group import join, place
from ddpm.parallel.resume import stopping
group = place()
join(group, torch.device("cpu"))
def ready():
    Path(f".{group.rank}").write_text(str(os.getpid()))
    os.rename(f".{group.rank}", f"{group.rank}.pid")
"""
WORK_UNTIL_TOLD_TO_END = """
with stopping() as stop:
    ready()
    while not stop.requested:
        time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DDPM_PROCESSES", "PET_NNODES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


def on_a_machine_with(gpus: int, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    return torch.device("cuda" if gpus else "cpu")


@pytest.mark.parametrize(("gpus", "count"), [(0, 1), (1, 1), (4, 4)])
@pytest.mark.parametrize("given", [None, ""])
def test_by_default_each_gpu_gets_a_process(
    monkeypatch: pytest.MonkeyPatch, gpus: int, count: int, given: str | None
) -> None:
    if given is not None:
        monkeypatch.setenv("DDPM_PROCESSES", given)
    assert wanted_processes(on_a_machine_with(gpus, monkeypatch)) == count


def test_gpus_do_not_count_where_the_cpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine_with(4, monkeypatch)
    assert wanted_processes(torch.device("cpu")) == 1
    monkeypatch.setenv("DDPM_PROCESSES", "6")
    assert wanted_processes(torch.device("cpu")) == 6


@pytest.mark.parametrize(("gpus", "given"), [(0, 1), (0, 3), (4, 1), (4, 3), (4, 4)])
def test_processes_are_as_many_as_named(monkeypatch: pytest.MonkeyPatch, gpus: int, given: int) -> None:
    monkeypatch.setenv("DDPM_PROCESSES", str(given))
    assert wanted_processes(on_a_machine_with(gpus, monkeypatch)) == given


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "1e1", " ", "²", "x"])
@pytest.mark.parametrize("gpus", [0, 4])
def test_processes_that_are_no_number_are_refused(monkeypatch: pytest.MonkeyPatch, gpus: int, given: str) -> None:
    monkeypatch.setenv("DDPM_PROCESSES", given)
    with pytest.raises(UserError, match=f"^DDPM_PROCESSES={re.escape(given)}: give a number of processes, 1 to 256$"):
        wanted_processes(on_a_machine_with(gpus, monkeypatch))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PROCESSES", "5")
    with pytest.raises(UserError, match=r"^DDPM_PROCESSES=5: only 4 GPUs are visible; give at most as many$"):
        wanted_processes(on_a_machine_with(4, monkeypatch))


def test_several_machines_are_those_of_torchs_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not on_several_machines()
    for nodes, several in (("", False), ("1", False), ("2", True), ("1:4", True)):
        monkeypatch.setenv("PET_NNODES", nodes)
        assert on_several_machines() is several


SHARED_OUT = ("ddpm.cli.generate", ["--count", "9"])


@pytest.mark.parametrize(
    ("wanted", "batches", "started"), [("", 9, 0), ("1", 9, 0), ("3", 9, 3), ("3", 2, 2), ("3", 1, 0), ("3", 0, 0)]
)
def test_work_is_shared_out_among_no_more_processes_than_batches(
    monkeypatch: pytest.MonkeyPatch, wanted: str, batches: int, started: int
) -> None:
    monkeypatch.setenv("DDPM_PROCESSES", wanted)
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(launching, "launch", lambda *arguments: calls.append(arguments))
    asked: list[int] = []

    def count() -> int:
        asked.append(batches)
        return batches

    done = shared_out(torch.device("cpu"), count, *SHARED_OUT)
    assert done == bool(started)
    assert calls == ([(started, *SHARED_OUT)] if started else [])
    assert asked == ([batches] if wanted == "3" else []), "files are read twice only where it must be"


def test_a_process_that_was_launched_does_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PROCESSES", "3")
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    assert not shared_out(torch.device("cpu"), lambda: 9, *SHARED_OUT)


Launched = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    """Start two processes that join a group and run the code that is given."""
    started = []

    def call(
        code: str,
        processes: int = 2,
        before: str = "",
        arguments: tuple[str, ...] = (),
        together: bool = True,
        after: str = "",
        **settings: object,
    ) -> "subprocess.Popen[str]":
        (tmp_path / "job.py").write_text(JOB + code)
        environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{tmp_path}"}
        environment |= {name: str(value) for name, value in settings.items()}
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH.format(before, processes, arguments, together, after)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def pids(folder: Path) -> list[int]:
    """Of both processes, once they are ready."""
    deadline = time.monotonic() + SECONDS
    while len(found := sorted(folder.glob("*.pid"))) < 2:
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.02)
    return [int(path.read_text()) for path in found]


def gone(pid: int) -> bool:
    """Whether a process has ended, or does so soon."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_the_processes_know_one_another(launched: Launched, tmp_path: Path) -> None:
    process = launched('Path(f"{group.rank} of {group.size}").write_text(str(group.from_first(group.rank + 40)))')
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert {path.name: path.read_text() for path in tmp_path.glob("* of *")} == {"0 of 2": "40", "1 of 2": "40"}
    assert process.returncode == 0


def test_the_first_says_what_is_wrong_and_all_end_with_code_1(launched: Launched) -> None:
    process = launched('sys.exit("error: train.lr: too high" if group.rank == 0 else 1)')
    assert process.communicate(timeout=SECONDS) == ("", "error: train.lr: too high\n")
    assert process.returncode == 1


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_a_signal_ends_is_named_and_ends_the_other(
    launched: Launched, tmp_path: Path, rank: int, number: signal.Signals
) -> None:
    process = launched("ready(); time.sleep(600)")
    workers = pids(tmp_path)
    os.kill(workers[rank], number)
    printed, said = process.communicate(timeout=SECONDS)
    assert said == f"error: the process of rank {rank} was ended by signal {int(number)}\n"
    assert printed == ""
    assert process.returncode == 1
    assert gone(workers[1 - rank])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_end_reaches_both_and_both_may_finish(
    launched: Launched, tmp_path: Path, number: signal.Signals
) -> None:
    process = launched(f'{WORK_UNTIL_TOLD_TO_END}time.sleep(1)\nPath(f"{{group.rank}}.saved").touch()\nsys.exit(1)')
    workers = pids(tmp_path)
    process.send_signal(number)
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == ["0.saved", "1.saved"]
    assert process.returncode == 1
    assert all(map(gone, workers))


@pytest.mark.parametrize("between", [0, 0.01, 0.1, 0.5])
def test_a_request_that_comes_again_and_again_does_not_keep_the_launcher(
    launched: Launched, tmp_path: Path, between: float
) -> None:
    process = launched(f"{WORK_UNTIL_TOLD_TO_END}time.sleep(1)\nsys.exit(1)")
    workers = pids(tmp_path)
    for _ in range(4):  # from the user, and from the system at the end of each parent
        process.send_signal(signal.SIGTERM)
        time.sleep(between)
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == 1
    assert all(map(gone, workers))


def test_signals_that_come_at_once_are_one_end(launched: Launched, tmp_path: Path) -> None:
    process = launched(f"{WORK_UNTIL_TOLD_TO_END}sys.exit(1)")
    pids(tmp_path)
    process.send_signal(signal.SIGSTOP)  # until all have come
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGCONT):
        process.send_signal(number)
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == 1


def test_a_launcher_that_ignores_the_end_of_its_terminal_goes_on(launched: Launched, tmp_path: Path) -> None:
    process = launched(f"{WORK_UNTIL_TOLD_TO_END}sys.exit(1)", before=IGNORING)  # as nohup has it
    pids(tmp_path)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=SECONDS) == ("", "")


def test_after_the_processes_signals_are_what_they_were(launched: Launched) -> None:
    process = launched("", after="import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert process.returncode == -signal.SIGTERM


def test_processes_of_one_machine_get_their_arguments_and_wait_for_no_other(launched: Launched, tmp_path: Path) -> None:
    code = 'Path(f"{group.rank} of {group.size}").write_text(repr(sys.argv[1:]))'
    given = ("--out", "a folder", "-m", "--nnodes", "-4")
    elsewhere = {"PET_NNODES": 2, "PET_NODE_RANK": 1, "PET_MASTER_ADDR": "192.0.2.1", "PET_MASTER_PORT": 9}
    process = launched(code, arguments=given, together=False, **elsewhere)
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert {path.name: path.read_text() for path in tmp_path.glob("* of *")} == dict.fromkeys(
        ("0 of 2", "1 of 2"), repr([*given])
    )


def test_a_process_that_is_told_while_others_wait_for_it_is_named(launched: Launched, tmp_path: Path) -> None:
    process = launched("ready(); time.sleep(600) if group.rank else group.gather(0)")
    os.kill(pids(tmp_path)[1], signal.SIGKILL)
    said = "error: the process of rank 1 was ended by signal 9\n"
    assert process.communicate(timeout=SECONDS) == ("", said)


@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is told on Linux alone")
def test_the_death_of_the_launcher_ends_the_processes(launched: Launched, tmp_path: Path) -> None:
    process = launched(WORK_UNTIL_TOLD_TO_END)
    workers = pids(tmp_path)
    process.kill()
    assert all(map(gone, workers))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_the_machine_of_node_rank_0_has_the_first_process(launched: Launched, tmp_path: Path) -> None:
    group = {"PET_NNODES": 2, "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": free_port()}
    code = 'ready(); Path(f"{group.rank}.node").write_text(os.environ["GROUP_RANK"] + str(group.size))'
    both = [launched(code, processes=1, PET_NODE_RANK=rank, **group) for rank in (1, 0)]
    said = [process.communicate(timeout=SECONDS) for process in both]
    # Which of the two launchers ends first is chance; then torch may warn the other that its store is gone.
    assert [(out, err.splitlines()[0]) for out, err in said] == [
        ("", "waiting for the processes of the other machines")
    ] * 2
    assert all(
        line.startswith(("[W", "Exception raised from", "frame #", "<omitting"))
        for _, err in said
        for line in err.splitlines()[1:]
        if line
    )
    assert [process.returncode for process in both] == [0, 0]
    assert [(tmp_path / f"{rank}.node").read_text() for rank in range(2)] == ["02", "12"]


@pytest.mark.parametrize(("cores", "threads"), [(8, "4"), (3, "1"), (1, "1")])
def test_threads_are_shared_among_the_processes(launched: Launched, tmp_path: Path, cores: int, threads: str) -> None:
    variables = ("OMP_NUM_THREADS", "DDPM_THREADS")
    code = f'ready(); Path(f"{{group.rank}}.threads").write_text(" ".join(os.environ[each] for each in {variables}))'
    process = launched(code, before=f"torch.set_num_threads({cores})", DDPM_THREADS=cores)
    assert process.communicate(timeout=SECONDS) == ("", "")
    assert [(tmp_path / f"{rank}.threads").read_text() for rank in range(2)] == [f"{threads} {threads}"] * 2


@pytest.mark.parametrize("settings", [{"PET_NNODES": "two"}, {"PET_NNODES": "2", "PET_RDZV_BACKEND": "carrier-pigeon"}])
def test_wrong_settings_of_the_launcher_are_one_line(launched: Launched, settings: dict[str, str]) -> None:
    process = launched("", **settings)
    printed, said = process.communicate(timeout=SECONDS)
    *waiting, error = said.splitlines()
    assert printed == ""
    assert waiting in ([], ["waiting for the processes of the other machines"])
    assert error.startswith("error: PET_*, the settings of torch's launcher: ")
    assert process.returncode == 1
