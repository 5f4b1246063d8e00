"""Sample one set of images, `gallery` or `population`, from the trained model."""

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ddpm.compute.device import start
from ddpm.compute.world import join, role
from ddpm.images.splits import save_samples
from ddpm.model import load_model
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.sampling.params import SetParams, SharedParams, fitted_set
from ddpm.sampling.sets import Sampling
from exact_stages.stage import Stage, run_stage

SAMPLES = Path("data/samples")
METRICS = Path("metrics/sample")
SETS = ("gallery", "population")


class Params(SharedParams):
    """The keys of `sample` that both sets share."""

    model: Annotated[str, Field(min_length=1)]


def main(stage: Stage) -> None:
    """Sample, or continue an interrupted run; then write images, labels, frames, and the params that were chosen."""
    name = stage.item
    shared, own = stage.params(Params, "sample"), stage.params(SetParams, f"sample.{name}")
    runtime = start()
    world = join(runtime.device)
    loaded = load_model(stage.input(Path(shared.model)), runtime.device)
    card = loaded.card
    params, follows = fitted_set(name, shared, own, card)
    for key, value in follows.items() if stage.writes else ():
        print(f"{key}: {value}, chosen for the model", file=sys.stderr)
    sampling = Sampling(name, loaded, params, own)
    key = stage.fingerprint(runtime.describe())
    world.agree(key)
    with Checkpoints(stage.name, key, world, samples=sampling) as checkpoints:
        sampling.run(runtime, world, checkpoints)
        if stage.writes:
            save_samples(stage.output(SAMPLES / f"{name}.safetensors"), sampling.samples())
        model = {
            "data": card.data.name,
            "images": sum(card.class_counts),
            "images_seen": card.images_seen,
            "class_conditional": card.model.class_conditional,
            "parameters": sum(weight.numel() for weight in loaded.network.parameters()),
        }
        if not all(card.class_counts):
            model["classes"] = [name for name, count in zip(card.data.classes, card.class_counts, strict=True) if count]
        facts = {"evaluations": len(sampling.timesteps), "batch": sampling.batch_size, "model": model}
        stage.write_json(METRICS / f"{name}.json", {**facts, "chosen": follows})
        checkpoints.save([SAMPLES / f"{name}.safetensors"])


if __name__ == "__main__":
    run_stage("sample", main, SETS, role=role())
