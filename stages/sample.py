"""Sample one set of images, `gallery` or `population`, from the trained model."""

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ddpm.compute.device import start
from ddpm.images.arrays import save_arrays
from ddpm.networks.checkpoint import load_model
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.parallel.world import join, role
from ddpm.sampling.samples import SampleParams, Samples, model_facts
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

SAMPLES = Path("data/samples")
METRICS = Path("metrics/sample")
SETS = ("gallery", "population")


class ModelFile(Sections):
    """The model file to sample from."""

    model: Annotated[str, Field(min_length=1)]


def main(stage: Stage) -> None:
    """Sample, or continue an interrupted run; then write images, labels, frames, and the params that were chosen."""
    name = stage.item
    params = stage.params(SampleParams, f"sample.{name}")
    model = stage.input(Path(stage.params(ModelFile, "sample").model))
    runtime = start()
    world = join(runtime.device)
    loaded = load_model(model, runtime.device)
    samples = Samples(name, loaded, params)
    chosen = {} if loaded.card.timesteps else params.chosen(loaded.card)
    follows = {f"sample.{name}.{key}": value for key, value in chosen.items()}
    for key, value in follows.items() if stage.writes else ():
        print(f"{key}: {value}, chosen for the model", file=sys.stderr)
    with Checkpoints(stage.name, stage.fingerprint(runtime.describe()), world, samples=samples) as checkpoints:
        samples.run(runtime, world, checkpoints)
        if stage.writes:
            path = stage.output(SAMPLES / f"{name}.safetensors")
            save_arrays(path, samples.tensors(), samples.facts())
            stage.write_json(
                METRICS / f"{name}.json",
                {
                    "evaluations": samples.steps,
                    "batch": samples.batch_size,
                    "model": model_facts(loaded),
                    "follows": follows,
                },
            )
        checkpoints.finish([SAMPLES / f"{name}.safetensors"])


if __name__ == "__main__":
    run_stage("sample", main, SETS, role=role())
