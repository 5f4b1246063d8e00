"""What saving the state of training costs: its seconds against those between two savings.

python -m benchmarks.saving
"""

import os
import statistics
import tempfile
import time

from benchmarks.trainings import on_noise
from ddpm.compute.device import start
from ddpm.parallel.resume import State
from ddpm.pipeline.console import run
from ddpm.pipeline.params import load_params
from stages.train import Params

ROUNDS, STEPS = 7, 10
BETWEEN = 30  # seconds between two savings, by default


def main() -> None:
    """Time steps and savings in turn, and print the medians."""
    params, runtime = load_params(Params), start()
    count = ROUNDS * STEPS * params.train.batch_size
    training = on_noise(params, count, runtime)
    step_seconds, save_seconds = [], []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        os.environ["DVC_ROOT"] = folder  # states go there
        state = State("benchmark", "0" * 16)
        loop = training.run()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            wanted = training.step + STEPS
            while training.step < wanted:
                next(loop)
            step_seconds.append((time.perf_counter() - began) / STEPS)
            began = time.perf_counter()
            state.save(training.state(), {})
            save_seconds.append(time.perf_counter() - began)
        size = sum(path.stat().st_size for path in state.folder.glob("*.safetensors"))
    step, save = statistics.median(step_seconds), statistics.median(save_seconds)
    print(f"a step of {params.train.batch_size} images: {step:.3f} s")
    print(
        f"a saving: {save:.3f} s, {save / BETWEEN:.2%} of the {BETWEEN} s between two; {size / 2e6:.1f} MB, kept twice"
    )


if __name__ == "__main__":
    run(main)
