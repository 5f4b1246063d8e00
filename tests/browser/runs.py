"""A run of a few numbers and pixels, with all files that a page and a card show."""

import io
import json
from typing import Any

from PIL import Image

from scripts.reporting.runs import Run

SCORES: dict[str, Any] = {
    "b": {
        "samples": {"frechet": 2.0, "frechet_error": 0.5},
        "test": {"frechet": 1.0},
        "baseline": {"frechet": 0.5},
    },
    "samples": {"precision": 0.25, "recall": 0.5, "near_copies_ratio_pixels": 0.5, "near_copies_pixels": 0.25},
    "test": {"precision": 0.75, "recall": 1.0},
}
BITS = {"images": 10, "test": {"bits_per_dim": 2.5}, "train": {"bits_per_dim": 2.25}}
ACCURACY = {"count": 4, "samples": {"accuracy": 0.5}, "real": {"accuracy": 0.875}}
PREPARED = {
    "train": {"images": 1234, "label_counts": {"cat": 1000, "<b>dog": 234}},
    "test": {"images": 100},
    "data": {"name": "mine", "shape": [3, 32, 48], "classes": ["cat", "<b>dog"]},
    "chosen": {"data.image_size": "32 x 48, their own"},
}
TRAINED = {"parameters": 54321, "images_seen": 9876, "chosen": {"train.epochs": 5.5}}
ENVIRONMENT = {"torch": "9.9.9", "device": "cpu"}
PARAMS = "schedule: {timesteps: 100}\nmodel: {class_conditional: true, channels: null}\ntrain: {lr: 0.003}\n"
HASHES = {"data/images": "d1", "models/ddpm.safetensors": "e1"}
PICTURES = ["samples.png", "by_class.png", "classes.png", "denoising.png", "neighbours.png", "reverse.gif"]


def whole_run(name: str = "mine", shade: int = 0, params: str = PARAMS, **more: Any) -> Run:
    """All of a run; `shade` makes its pictures others, `more` adds or replaces metrics by their stems."""
    values = {
        "evaluate/scores": SCORES,
        "likelihood/bits": BITS,
        "classification_accuracy_score/accuracy": ACCURACY,
        "preprocess/summary": PREPARED,
        "train/summary": TRAINED,
        "train/environment": ENVIRONMENT,
    }
    files = {f"metrics/{path}.json": json.dumps(value).encode() for path, value in (values | more).items()}
    files |= {f"metrics/draw/{path}": picture(shade, path[-3:]) for path in PICTURES}
    files["metrics/forward_diffusion/strip.png"] = picture(shade, "png")
    files["params.yaml"] = params.encode()
    return Run(name, files, "0123456789abcdef", hashes=HASHES)


def picture(shade: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 16), shade).save(buffer, format=kind)
    return buffer.getvalue()
