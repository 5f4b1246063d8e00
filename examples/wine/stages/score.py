"""Score the model on the wines held out."""

import json
from pathlib import Path

import numpy as np

from exact_stages import Stage, run_stage
from wine.softmax import logits, loss


def main(stage: Stage) -> None:
    """Write accuracy and loss."""
    x, y = map(np.array, json.loads(stage.input(Path("data/test.json")).read_bytes()).values())
    weights = np.array(json.loads(stage.input(Path("models/wine.json")).read_bytes())["weights"])
    right = logits(weights, x).argmax(axis=1) == y
    stage.write_json(Path("metrics/score/scores.json"), {"accuracy": right.mean().item(), "loss": loss(weights, x, y)})


if __name__ == "__main__":
    run_stage("score", main)
