"""Where the host waits for the card: synchronising operations, by the line that calls them.

They are those that torch.cuda.set_sync_debug_mode sees: copies from a card to the host, and what reads numbers there
(`item`, `tolist`, `nonzero`, boolean masks). It does not see torch.cuda.synchronize, nor copies from pageable memory
to a card.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

import torch

from benchmarks.on_a_card.setting import NOT_MEASURED, Row, Setting, mode, networks
from benchmarks.on_a_card.speed import untrained
from benchmarks.synthetic import ROOT
from benchmarks.trainings import NOISE, gradient_steps, on_noise
from ddpm.classifier.fit import train_classifier
from ddpm.classifier.model import Classifier, ClassifierParams
from ddpm.compute.device import Runtime
from ddpm.images.splits import Split
from ddpm.pipeline.params import load_params
from ddpm.sampling.drawing import draw_batch
from stages.sample import SampleParams

MESSAGE = "called a synchronizing CUDA operation"  # of c10/cuda/CUDAFunctions.cpp
WARM_STEPS = 5  # before it is counted


def synchronisations(setting: Setting, runtime: Runtime) -> Iterator[Row]:
    """Of training, of sampling and of a classifier's training."""
    params = networks(setting)
    loops = {
        f"training steps of {name}": gradient_steps(on_noise(each, setting.images, runtime))
        for name, each in params.items()
    }
    loops["sampling steps of the default"] = sampling(setting, runtime)
    loops["steps of a classifier"] = classifying(setting, runtime)
    for name, steps in loops.items():
        first = len([*islice(steps, WARM_STEPS)])
        with counted(runtime.device) as places:
            count = len([*islice(steps, setting.counted_steps)])
        assert first == WARM_STEPS
        assert count == setting.counted_steps
        value = written(places) if runtime.device.type == "cuda" else NOT_MEASURED
        yield Row(f"host synchronisations in {count} {name}, {mode()}", value, "none, but for losses read late")


def sampling(setting: Setting, runtime: Runtime) -> Iterator[object]:
    """Steps of the default sampler, batch after batch, but for the last of each, after which images are looked at."""
    loaded = untrained(networks(setting)["the default"], runtime)
    params = load_params(SampleParams, "sample.population").model_copy(update={"steps": 100})
    while True:
        yield from islice(draw_batch(loaded, params, 0, range(min(setting.samples, 100)), runtime), 99)


def classifying(setting: Setting, runtime: Runtime) -> Iterator[object]:
    """Steps of a classifier's training."""
    params = load_params(ClassifierParams, "classifier")
    if setting.small:
        params = params.model_copy(update={"channels": 2, "batch_size": 8})
    images = torch.randint(256, (setting.images, *NOISE.shape), dtype=torch.uint8)
    train = Split(images, torch.arange(setting.images) % len(NOISE.classes))
    return train_classifier(Classifier(params, NOISE), train, params, runtime)


@contextmanager
def counted(device: torch.device) -> Iterator[Counter[str]]:
    """How often each place makes the host wait inside the block, as it goes on; on a CPU, none does."""
    places: Counter[str] = Counter()
    show = warnings.showwarning

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if MESSAGE in str(message):
            places[place(filename, lineno)] += 1
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=MESSAGE)
        warnings.showwarning = note
        before = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode(before)


def place(file: str, line: int) -> str:
    """The innermost line of the project that is running, and what it calls there, where that is another's."""
    frame = sys._getframe(1)
    while frame and not _ours(frame.f_code.co_filename):
        frame = frame.f_back  # type: ignore[assignment]
    called = f"{'/'.join(Path(file).parts[-3:])}:{line}"
    if not frame:
        return called
    own = Path(frame.f_code.co_filename).resolve().relative_to(ROOT)
    here = f"{own}:{frame.f_lineno}"
    return here if Path(file).name == own.name else f"{here}, in {called}"


def written(places: Counter[str]) -> str:
    """All of them in a line, the most frequent first."""
    listed = "; ".join(f"`{name}` {count} times" for name, count in places.most_common())
    return f"{places.total()}: {listed}" if places else "none"


def _ours(file: str) -> bool:
    path = Path(file).resolve()
    return path.is_relative_to(ROOT) and "site-packages" not in path.parts and path != Path(__file__).resolve()
