"""Decode the raw files strictly, normalise the images to [-1, 1], and describe the data."""

from pathlib import Path

import torch

from ddpm.data.idx import decode_pair
from ddpm.data.images import to_float
from ddpm.runtime.arrays import save_arrays
from ddpm.runtime.console import run
from ddpm.runtime.files import write_json

RAW = Path("data/raw")
PROCESSED = Path("data/processed")
METRICS = Path("metrics/preprocess")
PREFIXES = {"train": "train", "test": "t10k"}


def main() -> None:
    """One file of arrays for each split, and a summary of both."""
    summary = {}
    for split, prefix in PREFIXES.items():
        images, labels = decode_pair(
            (RAW / f"{prefix}-images-idx3-ubyte").read_bytes(),
            (RAW / f"{prefix}-labels-idx1-ubyte").read_bytes(),
            split,
        )
        normalised = to_float(images).unsqueeze(1)
        save_arrays(PROCESSED / f"{split}.safetensors", {"images": normalised, "labels": labels})
        summary[split] = {
            "images": len(images),
            "pixel_mean": round(normalised.mean(dtype=torch.float64).item(), 6),
            "pixel_deviation": round(normalised.double().std().item(), 6),
            "label_counts": {str(label): count for label, count in enumerate(labels.bincount(minlength=10).tolist())},
        }
    write_json(METRICS / "summary.json", summary)


if __name__ == "__main__":
    run(main)
