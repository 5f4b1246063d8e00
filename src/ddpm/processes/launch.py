"""Run a stage by the command in DDPM_LAUNCH, such as torchrun or srun, and end it when DVC ends.

The stage may run on other machines, where the process id of DVC means nothing. So DVC is watched here, beside it; what
runs elsewhere ends with its launcher. dvc.yaml has `python src/ddpm/processes/launch.py python -m stages.NAME`.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

SECONDS_TO_SAVE = 15  # from SIGTERM to SIGKILL


def main() -> None:
    """Become the command line, with the launcher in place of its first word; leave a process behind that watches."""
    command = sys.argv[1:]
    try:
        if launcher := shlex.split(os.environ.get("DDPM_LAUNCH", "")):
            name = f"ddpm-{os.uname().nodename}-{os.getpid()}"
            srun = [place for place, word in enumerate(launcher) if os.path.basename(word) == "srun"][:1]
            for place in srun:
                launcher.insert(place + 1, f"--job-name={name}")
            command[:1] = launcher
            dvc = int(os.environ.get("STAGE_PARENT") or os.getppid())  # fish tells no PPID
            # A stage ends with the process that started it: an agent of torchrun may be killed, and leave it behind.
            # Of srun, one dead task ends all, and the first Ctrl-C does.
            os.environ |= {"STAGE_PARENT": "0", "SLURM_KILL_BAD_EXIT": "1", "SLURM_DISABLE_STATUS": "1"}
            own = os.getpid()  # the child's parent may have ended by the time that it asks
            if os.fork() == 0:
                _watch(dvc, own, name if srun else "")
                os._exit(0)
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: DDPM_LAUNCH: {command[0]}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"error: DDPM_LAUNCH: {error}")


def _watch(dvc: int, launcher: int, name: str) -> None:
    """Wait until DVC or its child `launcher` ends; then end the launcher, and the job or job step of that name.

    Whoever kills srun and its helper at once leaves the processes on the nodes running.
    """
    os.setsid()  # outlive a kill of the process group
    import psutil

    null = os.open(os.devnull, os.O_RDWR)
    for each in range(3):
        os.dup2(null, each)

    def ended() -> bool:
        return os.getppid() != launcher

    with contextlib.suppress(psutil.NoSuchProcess):
        while not ended() and dvc in [each.pid for each in psutil.Process(launcher).parents()]:
            time.sleep(1)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not ended():
            os.kill(launcher, number)
        deadline = time.monotonic() + SECONDS_TO_SAVE
        while not ended() and time.monotonic() < deadline:
            time.sleep(0.1)
    if name and shutil.which("scancel"):
        # squeue ignores --name together with --steps.
        steps = f"""squeue --me --steps --noheader --format '%i %j' | awk '$2 == "{name}" {{ print $1 }}'"""
        subprocess.run(f"scancel --me --name {name}; {steps} | xargs --no-run-if-empty scancel", shell=True)


if __name__ == "__main__":
    main()
