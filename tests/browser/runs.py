"""A run of three numbers and a few pixels, with all files that a run has."""

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
    "samples": {"precision": 0.25, "recall": 0.5, "near_copies_pixels": 0.5, "near_copies_features": 0.25},
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
HASHES = {"data/images": "d1", "stages/train.py": "c1", "models/ddpm.safetensors": "e1", "metrics/train/loss.csv": "f1"}
PICTURES = ["samples.png", "by_class.png", "classes.png", "denoising.png", "neighbours.png", "reverse.gif"]


def whole_run(name: str = "mine", shade: int = 0, **more: Any) -> Run:
    """All that a run has; `shade` makes its pictures and curves others, `more` replaces files by their stems."""
    tables = {
        "forward_diffusion/schedule": ["t,betas,alphas_cumprod,log10_snr", "0,0.1,0.9,1", "99,0.2,0.1,-1"],
        "train/loss": ["step,train_loss", *(f"{step},{(1 + shade) / step}" for step in range(1, 601))],
        "train/validation": ["step,validation_loss", "300,0.5", "600,0.25"],
        "train/loss_by_timestep": ["t,train_loss", "25,0.5", "75,0.125"],
        "train/validation_by_timestep": ["t,validation_loss", "25,0.5", "75,0.25"],
        "distill/4/loss": ["step,auxiliary,moments", "20,1,0.5", "40,1,0.25"],
    }
    values = {
        "evaluate/scores": SCORES,
        "likelihood/bits": BITS,
        "classification_accuracy_score/accuracy": ACCURACY,
        "preprocess/summary": PREPARED,
        "train/summary": TRAINED,
        "train/environment": ENVIRONMENT,
    }
    files = {f"metrics/{path}.csv": "\n".join(lines).encode() for path, lines in tables.items()}
    files |= {f"metrics/{path}.json": json.dumps(more.get(path, value)).encode() for path, value in values.items()}
    files |= {f"metrics/evaluate/{path}": picture(shade, path[-3:]) for path in PICTURES}
    files["metrics/forward_diffusion/strip.png"] = picture(shade, "png")
    files["params.yaml"] = more.get("params.yaml", PARAMS).encode()
    return Run(name, files, "0123456789abcdef", hashes=HASHES)


def picture(shade: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 16), shade).save(buffer, format=kind)
    return buffer.getvalue()
