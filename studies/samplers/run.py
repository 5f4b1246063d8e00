"""Train the default and distil it, and score samples of each sampler: a stage of studies/dvc.yaml.

    python -m studies.samplers.run SEED SAMPLES

The samples are unfiltered. Beside them stand as many test images, in some draws.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ddpm.diffusion.glimpses import png
from ddpm.diffusion.model import LoadedModel, load_model
from ddpm.diffusion.randomness import generator
from ddpm.diffusion.training import new_training
from ddpm.images.splits import Samples
from ddpm.params.distill import DistillParams
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import Runtime, start
from ddpm.processes.world import ALONE
from ddpm.scores.c2st import quantised, run_c2st
from ddpm.scores.comparisons import draw_places
from exact_stages.console import run
from exact_stages.stage import Stage
from stages.distill import new_distillation, save
from studies.trials import SEED, Judged, Rows, changed, kept, mnist, params_of, sampled

ROWS = Path("studies/samplers/rows")
DISTILLED = DistillParams(steps=(4, 2, 1), images_seen=32_000, batch_size=64, seed=0)  # as in params.yaml
SOLVER, GUIDED, STUDENT = "DPM-Solver++", "DPM-Solver++, guided", "distilled"
SETTINGS: list[tuple[str, int, str]] = [  # the sampler, its evaluations, and its changes of the default
    *((SOLVER, steps, "guidance=1") for steps in (6, 10, 16, 24)),
    *((GUIDED, steps, "guidance=null") for steps in (6, 10, 16, 24, 50)),
    (f"{GUIDED} by 1.5", 24, "guidance=1.5"),
    (f"{SOLVER} without noise", 24, "guidance=1 scored.eta=0"),
    ("DDIM", 24, "guidance=1 scored.sampler=ddim scored.eta=0"),
    ("ancestral", 24, "guidance=1 scored.sampler=ddpm"),
    *((STUDENT, steps, "guidance=1 scored.sampler=ddpm") for steps in DISTILLED.steps),
]
DRAWS, LEVELS, NETWORK = 5, 8, "b"  # of test images; levels and network of the two-sample test
COLUMNS = 20  # of the picture


def main() -> None:
    """Make the rows of a seed, and a picture with a row of samples for each setting."""
    seed, count = map(int, sys.argv[1:])
    with Stage("samplers", str(seed)) as stage:
        runtime, rows = start(), Rows()
        scores = Scores(count, runtime)
        params = params_of(changed([f"train.seed={seed}"]))
        training = new_training(scores.real.train, params.schedule, params.model, params.train, runtime)
        key = stage.fingerprint(runtime.describe())
        with Checkpoints(stage.name, key, ALONE, training=training, rows=rows) as checkpoints:
            checkpoints.run(f"seed {seed}", training)
            teacher = kept(training, runtime)
            students = {steps: scores.distilled(teacher, steps, checkpoints) for steps in DISTILLED.steps}

            def made(name: str, steps: int, changes: str, count: int) -> Samples:
                settings = [f"sample.{each}" for each in [*changes.split(), f"scored.{steps=}", f"scored.{count=}"]]
                return sampled(students[steps] if name == STUDENT else teacher, changed(settings), runtime, checkpoints)

            rows.made = rows.made or [{"sampler": "test images", "evaluations": 0} | each for each in scores.of_test()]
            for name, steps, changes in SETTINGS[len(rows.made) - DRAWS :]:
                row = scores.of(made(name, steps, changes, count))
                rows.made.append({"sampler": name, "evaluations": steps} | row)
                checkpoints.save()
            pictures = [made(*setting, count=COLUMNS).images for setting in SETTINGS]
            of_seed = [{"seed": seed} | row for row in rows.made]
            stage.write(ROWS / f"{seed}.png", png(torch.stack(pictures)))
            stage.write_json(ROWS / f"{seed}.json", {"made_in": runtime.describe(), "rows": of_seed})
            checkpoints.save([ROWS / f"{seed}.png", ROWS / f"{seed}.json"])


class Scores:
    """Distils, and scores samples of MNIST by its judge, and by a two-sample test beside as many real images."""

    def __init__(self, count: int, runtime: Runtime) -> None:
        self.count, self.runtime, self.real = count, runtime, mnist()
        self.judged = Judged(self.real, runtime)

    def distilled(self, teacher: LoadedModel, steps: int, checkpoints: Checkpoints) -> LoadedModel:
        """Distil a model to a number of evaluations."""
        distillation = new_distillation(teacher, self.real.train.split, steps, DISTILLED, self.runtime)
        checkpoints.run(f"distill {steps}", distillation)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            save(path, distillation, teacher)
            return load_model(path, self.runtime.device)

    def of(self, samples: Samples) -> dict[str, Any]:
        """Return the scores of samples."""
        assert samples.labels is not None
        test, train = self.judged.labels
        kept, passing = (torch.ones(len(each), dtype=torch.bool) for each in (samples.labels, train))
        places = draw_places(samples.labels, test, train, kept, passing, SEED, self.judged.reference)
        ours, others = samples.images[places["samples"][0]], self.real.train.split.images[places["real"][0]]
        ours, others = (quantised(each, LEVELS) for each in (ours, others))
        accuracy = run_c2st(ours, others, NETWORK, SEED, self.runtime).accuracy
        return self.judged.row(samples) | {k: v and round(v, 4) for k, v in accuracy.row("c2st").items()}

    def of_test(self) -> list[dict[str, Any]]:
        """Return the scores of random test images, in DRAWS draws."""
        images, labels = self.real.test.split
        orders = (torch.randperm(len(labels), generator=generator(draw, "draw"))[: self.count] for draw in range(DRAWS))
        none, card, every = images[:0], self.real.test.card, [*range(10)]
        return [self.of(Samples(images[each], labels[each], none, none, card, every, [], {})) for each in orders]


if __name__ == "__main__":
    run(main)
