"""Time a training step at numbers of images and in both precisions, and the draw of its target images.

    python -m studies.growth.steps 60000 1000000

All take turns in one process, so that other work hits all alike. Images are noise, 28 x 28 in grey. To see a CPU
without AMX on one that has it, set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch

from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import distinct, generator
from ddpm.images.card import DataCard
from ddpm.images.splits import Processed, Split
from ddpm.train import new_training, prepare
from exact_stages.console import run
from exact_stages.params import load_params
from stages.train import Params

TARGETS, TURNS, STEPS, BATCH = 2048, 5, 12, 64


def main() -> None:
    """Print the median CPU milliseconds of a step for each number and precision, and of a draw for each number."""
    counts, runtime, params = [int(each) for each in sys.argv[1:]], start(), load_params(Params)
    print(f"{torch.get_num_threads()} threads, {runtime.describe()['cpu']}")

    def steps(count: int, precision: torch.dtype) -> Iterator[object]:
        images = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator(0, "images"))
        card = DataCard(name="noise", shape=(1, 28, 28), classes=tuple("0123456789"))
        split = Split(images, torch.arange(count) % 10)
        setup = prepare(Processed(card, split, torch.arange(count), (1000,) * 10), params.model, params.train)
        return iter(new_training(setup, params.schedule, None, Runtime(runtime.device, precision)).run())

    cases = [*itertools.product(counts, (torch.bfloat16, torch.float32))]
    running = {case: steps(*case) for case in cases}
    found: dict[tuple[int, torch.dtype], list[float]] = {case: [] for case in cases}
    for turn in range(TURNS + 1):
        for case, each in running.items():
            found[case].append(milliseconds(lambda each=each: next(each), STEPS))  # type: ignore[misc]
    for (count, precision), (_, *times) in found.items():  # the first turn warms up
        step = statistics.median(times)
        print(f"{count:,} images, {precision}: a step {step:.1f} ms, {1000 * BATCH / step:.0f} images per CPU second")
    for count in counts:
        draw = milliseconds(lambda count=count: distinct(TARGETS, count, 0, "target images"), 50)  # type: ignore[misc]
        print(f"{count:,} images: the draw of {TARGETS:,} takes {draw:.2f} ms")


def milliseconds(function: Callable[[], object], times: int) -> float:
    """Return the mean CPU milliseconds of calls."""
    began = time.process_time()
    for _ in range(times):
        function()
    return 1000 * (time.process_time() - began) / times


if __name__ == "__main__":
    run(main)
