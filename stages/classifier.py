"""Train the digit classifier whose features the scores use; it depends on the data alone."""

from pathlib import Path

import torch

from ddpm.arrays import load_arrays
from ddpm.classifier import (
    Classifier,
    ClassifierParams,
    features_and_logits,
    save_classifier,
    train_classifier,
)
from ddpm.console import UserError, progress, run
from ddpm.device import start
from ddpm.files import write_json
from ddpm.params import Sections, load_params

PROCESSED = Path("data/processed")
MODEL = Path("models/classifier.safetensors")
METRICS = Path("metrics/classifier")


class Params(Sections):
    """What this stage reads."""

    classifier: ClassifierParams


def main() -> None:
    """Train on all training images, then test."""
    params = load_params(Params).classifier
    runtime = start()
    train, test = (
        load_arrays(PROCESSED / f"{split}.safetensors", {"images", "labels"})[0] for split in ("train", "test")
    )
    if params.batch_size > len(train["images"]):
        raise UserError(
            f"classifier.batch_size: {params.batch_size} exceeds the {len(train['images'])} training images"
        )
    torch.manual_seed(params.seed)
    model = Classifier(params)
    steps = params.epochs * (len(train["images"]) // params.batch_size)
    losses = train_classifier(model, train["images"], train["labels"], params, runtime)
    with progress(losses, desc="classifier", total=steps, unit="step") as bar:
        for loss in bar:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    _, logits = features_and_logits(model, test["images"], runtime.device)
    accuracy = (logits.argmax(1) == test["labels"]).double().mean().item()
    save_classifier(MODEL, model.cpu())
    parameters = sum(weight.numel() for weight in model.parameters())
    write_json(METRICS / "summary.json", {"test_accuracy": round(accuracy, 6), "parameters": parameters})


if __name__ == "__main__":
    run(main)
