"""Train the default with one change, once for each seed, and score its samples: a stage of studies/dvc.yaml.

    python -m studies.recipe.run CHANGE MINUTES SEEDS SAMPLES [KEY=VALUE ...]

The samples are without guidance and filter.
"""

import sys
from pathlib import Path
from typing import Any

from ddpm.diffusion.training import new_training
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import start
from exact_stages.console import run
from exact_stages.stage import Stage
from studies.trials import Judged, changed, images_in, kept, make_rows, mnist, params_of, sampled

ROWS = Path("studies/recipe/rows")


def main() -> None:
    """Make the rows of a change."""
    change, minutes, seeds, samples, *settings = sys.argv[1:]
    with Stage("recipe", change) as stage:
        values = changed([*settings, "sample.guidance=1", f"sample.scored.count={samples}"])
        params = params_of(values)
        seen, runtime, real = images_in(float(minutes), "recipe", change), start(), mnist()
        judged = Judged(real, runtime)

        def row(seed: int, checkpoints: Checkpoints) -> dict[str, Any]:
            train = params.train.model_copy(update={"seed": seed, "images_seen": seen})
            training = new_training(real.train, params.schedule, params.model, train, runtime)
            checkpoints.run(f"{change}, seed {seed}", training)
            facts = {name: training.summary()[name] for name in ("images_seen", "parameters")}
            samples = sampled(kept(training, runtime), values, runtime, checkpoints)
            return {"change": " ".join(settings), "seed": seed, **facts, **judged.row(samples)}

        make_rows(stage, ROWS / f"{change}.json", [*map(int, seeds.split(","))], row, runtime)


if __name__ == "__main__":
    run(main)
