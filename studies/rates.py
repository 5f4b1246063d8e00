"""Measure what studies/rates.json lacks; on another kind of machine, all of it. Run this alone on the machine.

    python -m studies.rates [SECONDS]

recipe: the images a second on which a core trains, by change: the median of rounds, in which changes take turns of
SECONDS. samples: those that it samples and scores. start: core-seconds before a stage trains.
"""

import json
import shlex
import statistics
import sys
import time
from itertools import islice

from ddpm.diffusion.training import Training, new_training
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import start
from ddpm.processes.world import ALONE
from exact_stages.console import progress, run
from exact_stages.declared import Declared
from exact_stages.files import write_json
from studies.trainings import on_noise
from studies.trials import RATES, Judged, changed, kept, mnist, params_of, sampled

IMAGES, SAMPLES, ROUNDS, WARM_UP = 60_000, 640, 5, 5


def main() -> None:
    """Measure, and write."""
    seconds = float((sys.argv[1:] or ["2"])[0])
    runtime = start(alone=True)
    found = json.loads(RATES.read_bytes()) if RATES.is_file() else {}
    if found.get("made_in") != runtime.describe():
        found = {"made_in": runtime.describe(), "recipe": {}}
    stages = {stage.name.partition("@")[2]: stage for stage in Declared().items("recipe")}
    settings = {change: shlex.split(each.meta["settings"]) for change, each in stages.items()}
    lacking = {change: params_of(changed(each)) for change, each in settings.items() if change not in found["recipe"]}
    rounds = [
        {change: per_second(on_noise(params, IMAGES, runtime), seconds) for change, params in lacking.items()}
        for _ in progress(range(ROUNDS), desc="rates")
    ]
    found["recipe"] |= {change: round(statistics.median(each[change] for each in rounds), 1) for change in lacking}
    write_json(RATES, found)
    if "samples" not in found:
        began = time.process_time()
        real = mnist()
        judged = Judged(real, runtime)
        found["start"] = round(time.process_time() - began, 1)
        values = changed(["train.images_seen=640", "sample.guidance=1", f"sample.scored.count={SAMPLES}"])
        params = params_of(values)
        training = new_training(real.train, params.schedule, params.model, params.train, runtime)
        for _ in training.run():
            pass
        began = time.process_time()
        judged.row(sampled(kept(training, runtime), values, runtime, Checkpoints("rates", "", ALONE)))
        found["samples"] = round(SAMPLES / (time.process_time() - began), 1)
        write_json(RATES, found)


def per_second(training: Training, seconds: float) -> float:
    """Return the images on which a core trains in a second of its time."""
    steps = training.run()
    for _ in islice(steps, WARM_UP):
        pass
    done, began = training.step, time.process_time()
    while time.process_time() < began + seconds:
        next(steps)
    return (training.step - done) * training.batch_size / (time.process_time() - began)


if __name__ == "__main__":
    run(main)
