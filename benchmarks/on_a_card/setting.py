"""What the parts of `benchmarks.gpu` share: how much is done, which networks, timing, and rows of the table."""

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from benchmarks.trainings import article_params
from ddpm.compute.device import Runtime
from ddpm.pipeline.params import load_params
from stages.train import Params

NOT_MEASURED = "not measured"


class Setting(NamedTuple):
    """How much is done: on a card, or so little of it that a CPU ends in seconds."""

    small: bool
    images: int  # to train on
    steps: int  # of the default in each timed run, of which there are `repeats`
    repeats: int
    samples: int
    hashed_steps: int  # before the states of two runs are compared; they end in an epoch's midst
    counted_steps: int  # in which synchronisations are counted
    batch_sizes: tuple[int, ...]
    seconds: float  # that each batch size has

    def target(self, of_all: str) -> str:
        """What the table says to aim at, which is of the whole work."""
        return "" if self.small else of_all


FULL = Setting(False, 60_000, 200, 5, 10_000, 50, 100, tuple(2**power for power in range(3, 13)), 1.0)
SMALL = Setting(True, 44, 4, 3, 12, 8, 10, (8, 16), 0.1)


class Row(NamedTuple):
    """A measure, as the table has it; `kept` is whether it is within a bound that correctness asks for."""

    what: str
    value: str
    bound: str = ""
    kept: bool = True

    def __str__(self) -> str:
        """A line of Markdown."""
        value = self.value if self.kept else f"{self.value}, beyond the bound"
        return f"| {' | '.join(cell.replace('|', '/') for cell in (self.what, value, self.bound))} |"


def networks(setting: Setting) -> dict[str, Params]:
    """The default and the article's network, each with its recipe; in the small setting narrow, with small batches."""
    found = {"the default": load_params(Params), "the article's network": article_params()}
    if not setting.small:
        return found
    narrow = {"channels": (4, 8), "patch_size": 2}
    return {
        name: params.model_copy(
            update={
                "model": params.model.model_copy(update=narrow),
                "train": params.train.model_copy(update={"batch_size": 8}),
            }
        )
        for name, params in found.items()
    }


def mode() -> str:
    """Whether this process replays steps as CUDA graphs."""
    return "captured" if os.environ.get("DDPM_CAPTURE") == "1" else "eager"


def take(steps: Iterator[object], count: int) -> None:
    """So many of them."""
    for _ in range(count):
        next(steps)


def seconds_of(work: Callable[[], object], runtime: Runtime) -> float:
    """How long the work takes, until the device has done it."""
    _synchronise(runtime)
    began = time.perf_counter()
    work()
    _synchronise(runtime)
    return time.perf_counter() - began


def _synchronise(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
