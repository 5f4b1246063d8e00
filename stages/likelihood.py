"""Bound the negative log-likelihood of real images, in bits per dimension: of test images, and of training images."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.device import start
from ddpm.compute.randomness import generator
from ddpm.images.pixels import to_float
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import Section, Sections
from ddpm.pipeline.stage import Stage, run_stage
from ddpm.scoring.likelihood import Bound, variational_bound

PROCESSED = Path("data/processed")
MODEL = Path("models/ddpm.safetensors")
METRICS = Path("metrics/likelihood")
BATCH = 100


class LikelihoodParams(Section):
    """How many images, and how many of the bound's terms for each."""

    images: Annotated[int, Field(ge=2, le=10**9)]
    terms: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Params(Sections):
    """What this stage reads."""

    likelihood: LikelihoodParams


def main(stage: Stage) -> None:
    """Both splits, by equally many images of the classes that the model was trained on; in float32.

    Held-out images count as training images here. A class-conditional model is told the images' true classes.
    """
    params = stage.params(Params).likelihood
    runtime = start()
    loaded = load_model(stage.input(MODEL), runtime.device)
    denoiser = loaded.denoiser(replace(runtime, precision=torch.float32))
    terms = min(params.terms, loaded.schedule.timesteps - 1)

    @torch.inference_mode()
    def denoise(labels: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        pred_x_start = denoiser(*(each.to(runtime.device) for each in (x_t, t, labels))).x_start
        if not pred_x_start.isfinite().all():  # the bound clips what it implies
            raise UserError(f"{MODEL}: its predictions are not finite; fetch it again, or train it anew")
        return pred_x_start.cpu()

    paths = {name: stage.input(PROCESSED / f"{name}.safetensors") for name in ("test", "train")}
    splits = {name: load_split(path).of(loaded.card.classes) for name, path in paths.items()}
    count = min(params.images, *(len(split.images) for split in splits.values()))
    scores: dict[str, object] = {"images": count, "terms": terms}
    with progress(desc="likelihood", total=len(splits) * count, unit="img") as bar:
        for name, split in splits.items():
            order = torch.randperm(len(split.images), generator=generator(params.seed, f"likelihood {name}"))
            bounds = []
            for batch in order[:count].split(BATCH):
                noise = [generator(params.seed, f"likelihood {name} image", index) for index in batch.tolist()]
                images, labels = split.take(batch)
                predict = partial(denoise, labels)
                bounds.append(variational_bound(predict, loaded.schedule, to_float(images), terms, noise))
                bar.update(len(batch))
            scores[name] = summary(Bound(*map(torch.cat, zip(*bounds, strict=True))))
    write_json(stage.output(METRICS / "bits.json"), scores)


def summary(bound: Bound) -> dict[str, float]:
    """Mean bits per dimension, their standard error over the images, and the mean of each part."""
    means = {f"{name}_bits": round(part.mean().item(), 5) for name, part in bound._asdict().items() if name != "total"}
    error = bound.total.std().item() / len(bound.total) ** 0.5
    return {"bits_per_dim": round(bound.total.mean().item(), 5), "standard_error": round(error, 5), **means}


if __name__ == "__main__":
    run_stage("likelihood", main)
