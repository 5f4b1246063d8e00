"""Bound the negative log-likelihood of test and training images by the trained model, in bits per dimension."""

from pathlib import Path

from ddpm.diffusion.bits import bits_per_dimension
from ddpm.diffusion.model import load_model
from ddpm.images.splits import load_split
from ddpm.params.likelihood import LikelihoodParams
from ddpm.processes.device import start
from exact_stages.console import UserError
from exact_stages.files import write_json
from exact_stages.params import Sections
from exact_stages.stage import Stage, run_stage

PROCESSED = Path("data/processed")
MODEL = Path("models/ddpm.safetensors")
METRICS = Path("metrics/likelihood")


class Params(Sections):
    """The params of this stage."""

    likelihood: LikelihoodParams


def main(stage: Stage) -> None:
    """Bound both splits by equally many images of those of the model's classes that have test images."""
    params = stage.params(Params).likelihood
    runtime = start()
    loaded = load_model(stage.input(MODEL), runtime.device)
    test, train = (load_split(stage.input(PROCESSED / f"{name}.safetensors")) for name in ("test", "train"))
    classes = [label for label in loaded.card.classes if label in test.split.labels]
    if not classes:
        raise UserError("train.classes, data.test: no test images of these classes; add some, or train others")
    splits = {"test": test.of(classes), "train": train.of(classes)}
    bits = bits_per_dimension(loaded, splits, params.images, runtime.device)
    named = {"model": MODEL.as_posix(), **bits, "made_in": runtime.name}  # sample.model may be another
    write_json(stage.output(METRICS / "bits.json"), named)


if __name__ == "__main__":
    run_stage("likelihood", main)
