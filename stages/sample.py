"""Sample one set of images, `preview` or `scored`, from the trained model."""

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ddpm.diffusion.denoiser import NotFiniteError
from ddpm.diffusion.model import load_model
from ddpm.diffusion.sets import Sampling
from ddpm.images.splits import save_samples
from ddpm.params.sample import SetParams, SharedParams, fitted_set
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import start
from ddpm.processes.world import join, role
from exact_stages.console import UserError
from exact_stages.stage import Role, Stage, run_stage

SAMPLES = Path("data/samples")
METRICS = Path("metrics/sample")
SETS = ("preview", "scored")


class Params(SharedParams):
    """The keys of `sample` that both sets share."""

    model: Annotated[str, Field(min_length=1)]


def main(stage: Stage) -> None:
    """Sample, or continue an interrupted run; then write images, labels, frames, and the params that were chosen."""
    name = stage.item
    shared, of_set = stage.params(Params, "sample"), stage.params(SetParams, f"sample.{name}")
    runtime = start()
    world = join(runtime.device)
    loaded = load_model(stage.input(Path(shared.model)), runtime.device)
    card = loaded.card
    params, chosen = fitted_set(name, shared, of_set, card)
    began = ", which began with clip art" if card.from_clip_art else ""
    for key, value in chosen.items() if stage.writes else ():
        print(f"{key}: {value}, chosen for the model{began}", file=sys.stderr)
    sampling = Sampling(name, loaded, params, of_set)
    key = stage.fingerprint(runtime.describe())
    world.check_equal(key)
    with Checkpoints(stage.name, key, world, samples=sampling) as checkpoints:
        try:
            sampling.run(runtime, world, checkpoints)
        except NotFiniteError as error:
            raise UserError(f"{error}; fetch the model again, or retrain it") from None
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
        stage.write_json(METRICS / f"{name}.json", {**facts, "chosen": chosen, "made_in": runtime.name})
        checkpoints.save([SAMPLES / f"{name}.safetensors"])


if __name__ == "__main__":
    run_stage("sample", main, SETS, role=Role(*role()))
