"""Print hashes of a short training, with and without settings that limit the instructions, and the speed of both.

    python -m studies.processors.run

Rows of two kinds of processors show where their bytes begin to differ: in the noisy images of the first step, in the
network's outputs, in the gradients, in the weights after the step, or after STEPS steps. Adds rows to results.csv.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from torch import Tensor

from ddpm.diffusion.training import new_training
from ddpm.images.splits import load_split
from ddpm.processes.device import start
from exact_stages.console import progress, run
from exact_stages.params import load_params
from stages.train import TRAIN, Params

RESULTS = Path(__file__).with_name("results.csv")
PRETRAINED = "src/ddpm/pretrained/mnist.safetensors"
STEPS = 100
LIMITED = {"DDPM_PRECISION": "float32", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
SETTINGS: dict[str, dict[str, str]] = {
    "none": {},
    "float32": {"DDPM_PRECISION": "float32"},
    "AVX2": LIMITED | {"MKL_CBWR": "AVX2"},
    "compatible": LIMITED | {"MKL_CBWR": "COMPATIBLE"},
}


def main() -> None:
    """Train with each setting in a process of its own; print and keep the rows."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for setting, variables in progress([*SETTINGS.items()], desc="processors", unit="setting"):
        changed = patch.dict(os.environ, variables, OMP_NUM_THREADS="1")
        with changed, ProcessPoolExecutor(1, get_context("spawn")) as process:
            rows.append({"setting": setting, **process.submit(trained).result()})
    found = pd.DataFrame(rows)
    print(found.to_string(index=False))
    every = pd.concat([pd.read_csv(RESULTS), found]).drop_duplicates(["cpu", "torch", "setting"], keep="last")
    every.to_csv(RESULTS, index=False)


def trained() -> dict[str, object]:
    """Train the pretrained model for STEPS steps in this process, as the default is trained."""
    runtime, params = start(), load_params(Params)
    # The first step of a new network tells nothing: its outputs are zero.
    train = params.train.model_copy(update={"fine_tune_from": PRETRAINED})
    training = new_training(load_split(TRAIN), params.schedule, params.model, train, runtime)
    first: dict[str, str] = {}

    def look(_: object, given: tuple[Tensor, ...], found: Tensor) -> None:
        first.update({"noisy images": hashed(given[:1]), "outputs": hashed([found])})
        hook.remove()

    hook = training.network.register_forward_hook(look)
    steps = training.run()
    next(steps)
    weights = [*training.network.parameters()]
    first |= {"gradients": hashed(weight.grad for weight in weights if weight.grad is not None)}
    first |= {"step 1": hashed(weights)}
    began = time.monotonic()
    while training.step < STEPS:
        next(steps)
    speed = (STEPS - 1) * training.params.batch_size / (time.monotonic() - began)
    facts = {name: value for name, value in runtime.describe().items() if name in ("cpu", "torch", "precision")}
    return {**facts, **first, f"step {STEPS}": hashed(weights), "images a second": round(speed)}


def hashed(values: Iterable[Tensor]) -> str:
    """Return the beginning of a hash of tensors."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.detach().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


if __name__ == "__main__":
    run(main)
