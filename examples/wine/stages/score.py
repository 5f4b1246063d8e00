"""Score the model on the wines held out."""

import json
from pathlib import Path

import numpy as np

from exact_stages import Stage, run_stage
from wine.softmax import loss


def main(stage: Stage) -> None:
    """Write accuracy and loss."""
    x, y = map(np.array, json.loads(stage.input(Path("data/test.json")).read_bytes()).values())
    weights = np.array(json.loads(stage.input(Path("models/wine.json")).read_bytes())["weights"])
    right = (x @ weights).argmax(axis=1) == y
    scores = {"accuracy": float(right.mean()), "loss": loss(weights, x, y), "count": len(y)}
    stage.write_json(Path("metrics/score/accuracy.json"), scores)


if __name__ == "__main__":
    run_stage("score", main)
