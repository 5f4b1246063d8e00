import os
import sys

sys.path.insert(0, f"{__path__[0]}/../src")  # the library of this repository, not an installed one
try:
    import psutil  # noqa: F401
except ModuleNotFoundError:
    sys.exit("error: this Python lacks the project's packages; `source .venv/bin/activate` first, or `make repro`")
from exact_stages.stage import begin

# A process has one thread, see src/ddpm/processes/workers.py; libraries read this when they are imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

if sys.argv[0] == "-m":  # the value while `python -m stages.NAME` imports this package
    parent = os.environ.get(
        "STAGE_PARENT"
    )  # the process id of DVC, by dvc.yaml; 0 behind a launcher, which watches DVC
    begin((int(parent) or os.getppid()) if parent else None, leads=os.environ.get("LOCAL_RANK", "0") == "0")
