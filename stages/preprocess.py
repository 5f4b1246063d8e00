"""Decode the raw files strictly, normalise the images to [-1, 1], and describe the data."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from ddpm.data.idx import decode_pair
from ddpm.data.images import to_float
from ddpm.runtime.arrays import save_arrays
from ddpm.runtime.console import UserError
from ddpm.runtime.files import write_json
from ddpm.runtime.params import Section, Sections
from ddpm.runtime.stage import Stage, run_stage

PROCESSED = Path("data/processed")
METRICS = Path("metrics/preprocess")
PREFIXES = {"train": "train", "test": "t10k"}


class DataParams(Section):
    """Where the images are."""

    set: Annotated[str, Field(min_length=1)]


class Params(Sections):
    """What this stage reads."""

    data: DataParams


def main(stage: Stage) -> None:
    """One file of arrays for each split, and a summary of both."""
    raw = Path(stage.item)
    if stage.params(Params).data.set != stage.item:
        raise UserError(f"data.set: {stage.params(Params).data.set} now, {raw} when DVC began; run it again")
    summary = {}
    for split, prefix in PREFIXES.items():
        images, labels = decode_pair(
            stage.input(raw / f"{prefix}-images-idx3-ubyte").read_bytes(),
            stage.input(raw / f"{prefix}-labels-idx1-ubyte").read_bytes(),
            split,
        )
        normalised = to_float(images).unsqueeze(1)
        save_arrays(stage.output(PROCESSED / f"{split}.safetensors"), {"images": normalised, "labels": labels})
        summary[split] = {
            "images": len(images),
            "pixel_mean": round(normalised.mean(dtype=torch.float64).item(), 6),
            "pixel_deviation": round(normalised.double().std().item(), 6),
            "label_counts": {str(label): count for label, count in enumerate(labels.bincount(minlength=10).tolist())},
        }
    write_json(stage.output(METRICS / "summary.json"), summary)


if __name__ == "__main__":
    run_stage("preprocess", main, argument="FOLDER")
