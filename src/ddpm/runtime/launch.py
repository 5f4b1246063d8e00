"""Several processes for one stage, through torch's own launcher (torch.distributed.run, known as torchrun).

Environment:
    DDPM_PROCESSES  how many on this machine; by default one for each visible GPU, and one where there is none.
    PET_*           what else torch's launcher takes, such as PET_NNODES and PET_RDZV_ENDPOINT for several machines.
"""

import logging
import os
import sys

import torch

from ddpm.runtime.console import UserError
from ddpm.runtime.environment import number
from ddpm.runtime.process import end_with_parent

MOST_PROCESSES = 256  # on one machine


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


def launch(processes: int, module: str) -> None:
    """Run `python -m module` in so many processes, and wait for them; SIGTERM and Ctrl-C reach them all.

    Raises:
        UserError: the launcher's settings are wrong, or the other machines cannot be reached.
        SystemExit: one of them failed, which ends the others, or the launcher was asked to end.
    """
    from torch.distributed import run  # slow to import
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # the processes say themselves what is wrong
    end_with_parent()
    threads = str(max(1, torch.get_num_threads() // processes))
    os.environ.setdefault("OMP_NUM_THREADS", threads)  # the launcher would take 1
    if os.environ.get("DDPM_THREADS"):
        os.environ["DDPM_THREADS"] = threads
    if on_several_machines():
        print("waiting for the processes of the other machines", file=sys.stderr)
    try:
        run.run(run.parse_args(["--nproc-per-node", str(processes), "--module", module]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            sys.exit(f"error: the training process of rank {rank} was ended by signal {-failure.exitcode}")
        sys.exit(1)
    except SignalException:
        sys.exit(1)
    except (ValueError, RuntimeError, AssertionError) as error:  # of its settings; of machines that it cannot reach
        reason = str(error).partition("\n")[0]
        raise UserError(f"PET_*, the settings of torch's launcher: {reason}") from None
