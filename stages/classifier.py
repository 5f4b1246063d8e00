"""Train one of the two classifiers whose features the scores use, `a` or `b`; they depend on the data alone."""

import sys
from pathlib import Path

from ddpm.data.splits import load_split
from ddpm.networks.classifier import NAMES, ClassifierParams, accuracy, save_classifier
from ddpm.runtime.console import UserError, run
from ddpm.runtime.device import start
from ddpm.runtime.files import write_json
from ddpm.runtime.params import Sections, load_params
from ddpm.training.classifier import fit_classifier

PROCESSED = Path("data/processed")
MODELS = Path("models")
METRICS = Path("metrics/classifier")


class Params(Sections):
    """What this stage reads."""

    classifier: ClassifierParams


def main() -> None:
    """Train the one that the command line names on all training images, then test."""
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        raise UserError(f"usage: python -m stages.classifier {{{','.join(NAMES)}}}")
    name = sys.argv[1]
    params = load_params(Params).classifier
    params = params.model_copy(update={"seed": (params.seed + NAMES.index(name)) % 2**63})
    runtime = start()
    train, test = (load_split(PROCESSED / f"{split}.safetensors") for split in ("train", "test"))
    if params.batch_size > len(train.images):
        raise UserError(f"classifier.batch_size: {params.batch_size} exceeds the {len(train.images)} training images")
    model = fit_classifier(f"classifier {name}", *train, params, runtime)
    found = accuracy(model, *test, runtime.device)
    save_classifier(MODELS / f"classifier-{name}.safetensors", model.cpu())
    parameters = sum(weight.numel() for weight in model.parameters())
    write_json(METRICS / f"{name}.json", {"test_accuracy": round(found, 6), "parameters": parameters})


if __name__ == "__main__":
    run(main)
