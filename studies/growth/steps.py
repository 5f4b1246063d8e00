"""Time a training step, and the draw of its target images, at several numbers of images; print a row for each.

    python -m studies.growth.steps 60000 1000000

The sizes take turns in one process, so that other work hits all alike. Images are noise, 28 x 28 in grey.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch

from ddpm.compute.device import start
from ddpm.compute.randomness import distinct, generator
from ddpm.images.card import DataCard
from ddpm.images.splits import Processed, Split
from ddpm.pipeline.console import run
from ddpm.pipeline.params import load_params
from ddpm.training.setup import new_training, prepare
from stages.train import Params

TARGETS, TURNS, STEPS = 2048, 7, 12


def main() -> None:
    """Print the median CPU milliseconds of a step and of a draw, for each number of images."""
    counts, runtime, params = [int(each) for each in sys.argv[1:]], start(), load_params(Params)
    print(f"{torch.get_num_threads()} threads, {runtime.describe()['cpu']}, {runtime.describe()['precision']}")

    def steps(count: int) -> Iterator[object]:
        images = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator(0, "images"))
        card = DataCard(name="noise", shape=(1, 28, 28), classes=tuple("0123456789"))
        split = Split(images, torch.arange(count) % 10)
        setup = prepare(Processed(card, split, torch.arange(count), (1000,) * 10), params.model, params.train)
        return iter(new_training(setup, params.schedule, None, runtime).run())

    running = {count: steps(count) for count in counts}
    for each in running.values():
        milliseconds(lambda each=each: next(each), STEPS)  # type: ignore[misc]
    found: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(TURNS):
        for count, each in running.items():
            found[count].append(milliseconds(lambda each=each: next(each), STEPS))  # type: ignore[misc]
    for count, times in found.items():
        draw = milliseconds(lambda count=count: distinct(TARGETS, count, 0, "target images"), 50)  # type: ignore[misc]
        print(f"{count:,} images: a step {statistics.median(times):.1f} ms, of it the draw {draw:.2f} ms")


def milliseconds(function: Callable[[], object], times: int) -> float:
    """Return the mean CPU milliseconds of calls."""
    began = time.process_time()
    for _ in range(times):
        function()
    return 1000 * (time.process_time() - began) / times


if __name__ == "__main__":
    run(main)
