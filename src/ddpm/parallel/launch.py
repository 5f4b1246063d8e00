"""Several processes for one stage or command, through torch's own launcher (torch.distributed.run, known as torchrun).

Environment:
    DDPM_PROCESSES  how many on this machine; by default one for each visible GPU, and one where there is none.
    PET_*           what else torch's launcher takes, such as PET_NNODES and PET_RDZV_ENDPOINT for several machines,
                    which train together, but do not draw together.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import torch

from ddpm.compute.environment import number
from ddpm.parallel.group import launched
from ddpm.pipeline.console import UserError

MOST_PROCESSES = 256  # on one machine
HELP = "DDPM_PROCESSES=N in the environment: N processes of this machine draw, by default one for each visible GPU."
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
ONE_MACHINE = ["--standalone", "--nnodes", "1", "--local-addr", "127.0.0.1"]  # whatever PET_* say of other machines


def wanted_processes(device: torch.device) -> int:
    """How many processes this machine is to start.

    Raises:
        UserError: DDPM_PROCESSES is no number, or more than there are GPUs.
    """
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    processes = number("DDPM_PROCESSES", max(gpus, 1), 1, MOST_PROCESSES, "processes")
    if gpus and processes > gpus:
        raise UserError(f"DDPM_PROCESSES={processes}: only {gpus} GPUs are visible; give at most as many")
    return processes


def on_several_machines() -> bool:
    """Whether this machine's processes are a share of a larger group."""
    return (os.environ.get("PET_NNODES") or "1") != "1"


def shared_out(device: torch.device, batches: Callable[[], int], module: str, arguments: Sequence[str]) -> bool:
    """Whether several processes of this machine have done the work; else this one is to do it, or its share.

    Args:
        batches: how many there are, of which each process takes one at a time; asked only where several are wanted.

    Raises:
        UserError, SystemExit: see `wanted_processes` and `launch`; and what `batches` raises is said once.
    """
    if launched() or (processes := wanted_processes(device)) == 1:
        return False
    processes = min(processes, batches())
    if processes > 1:
        launch(processes, module, arguments)
    return processes > 1


def launch(processes: int, module: str, arguments: Sequence[str] = (), several_machines: bool = False) -> None:
    """Run `python -m module` in so many processes, and wait for them; SIGTERM and Ctrl-C reach them all.

    Args:
        several_machines: whether they join those of other machines, as PET_* say.

    Raises:
        UserError: the launcher's settings are wrong, or the other machines cannot be reached.
        SystemExit: one of them failed, which ends the others, or the launcher was asked to end.
    """
    from torch.distributed import run  # slow to import
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # the processes say themselves what is wrong
    threads = str(max(1, torch.get_num_threads() // processes))
    os.environ.setdefault("OMP_NUM_THREADS", threads)  # the launcher would take 1
    if os.environ.get("DDPM_THREADS"):
        os.environ["DDPM_THREADS"] = threads
    os.environ["DDPM_PARENT"] = str(os.getpid())
    if several_machines:
        print("waiting for the processes of the other machines", file=sys.stderr)
    try:
        machine = [] if several_machines else ONE_MACHINE
        once = ["--max-restarts", "0", "--log-dir", os.devnull]
        command = [*machine, *once, "--nproc-per-node", str(processes), "--module", module, *arguments]
        settings = run.parse_args(command)
        settings.signals_to_handle = ""  # torch's own handlers would raise again while it waits for the processes
        with _ended_once():
            run.run(settings)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            sys.exit(f"error: the process of rank {rank} was ended by signal {-failure.exitcode}")
        sys.exit(1)
    except SignalException:
        sys.exit(1)
    except (ValueError, RuntimeError, AssertionError) as error:  # of its settings; of machines that it cannot reach
        reason = str(error).partition("\n")[0]
        raise UserError(f"PET_*, the settings of torch's launcher: {reason}") from None


@contextlib.contextmanager
def _ended_once() -> Iterator[None]:
    """Inside, the first signal that asks to end ends the processes; one that is ignored, as with nohup, stays so.

    Raises:
        SignalException: as torch's launcher takes it, which then waits for the processes.
    """
    before = {each: signal.getsignal(each) for each in ENDING}
    for each, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(each, _end)
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) == _end:
                signal.signal(each, handler)


def _end(signum: int, _frame: object) -> None:
    """Pass over what comes after it, but for a second Ctrl-C: it would cut off the wait for the processes.

    One end often comes as several signals: to the group, and at the death of each parent.
    """
    from torch.distributed.elastic.multiprocessing import SignalException

    for each in ENDING:
        signal.signal(each, _pass_over)  # SIG_IGN would have Python complain of what has come already
    if signum == signal.SIGINT:
        signal.signal(signum, signal.SIG_DFL)
    raise SignalException("asked to end", signal.SIGTERM)


def _pass_over(_signum: int, _frame: object) -> None:
    pass
