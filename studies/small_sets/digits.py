"""Train the default on random digits, once for each subset, and score its samples: a stage of studies/dvc.yaml.

    python -m studies.small_sets.digits COUNT SUBSETS SAMPLES

The number of a subset is the seed of its training, too. Samples are guided as the model chooses, and unfiltered.
"""

import sys
from pathlib import Path
from typing import Any

from ddpm.diffusion.training import new_training
from ddpm.images.splits import Split
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import start
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.subsets import copies, subset_of
from studies.trials import Judged, changed, kept, make_rows, mnist, params_of, sampled

ROWS = Path("studies/small_sets/rows")


def main() -> None:
    """Make the rows of a count."""
    count, subsets, samples = sys.argv[1:]
    with Stage("small_sets", count) as stage:
        runtime, real = start(), mnist()
        values, judged = changed([f"sample.scored.count={samples}"]), Judged(real, runtime)
        params = params_of(values)

        def row(subset: int, checkpoints: Checkpoints) -> dict[str, Any]:
            images = subset_of(real.train, int(count), subset)
            train = params.train.model_copy(update={"seed": subset})
            training = new_training(images, params.schedule, params.model, train, runtime)
            checkpoints.run(f"{count} digits, subset {subset}", training)
            made = sampled(kept(training, runtime), values, runtime, checkpoints)
            assert made.labels is not None
            facts = {"digits": int(count), "subset": subset, "images_seen": training.kept_step * training.batch_size}
            return facts | judged.row(made) | copies(Split(made.images, made.labels), images, real)

        make_rows(stage, ROWS / f"{count}.json", [*map(int, subsets.split(","))], row, runtime)


if __name__ == "__main__":
    run(main)
