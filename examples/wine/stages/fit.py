"""Fit the model, or continue a fit that was cut off."""

import json
import time
from pathlib import Path

import numpy as np

from exact_stages import SavedState, Stage, progress, run_stage
from wine.softmax import FitParams, descend, loss, start

MODEL = Path("models/wine.json")
SAVE_SECONDS = 1


def main(stage: Stage) -> None:
    """Write the weights, and the loss every 100 steps."""
    params = stage.params(FitParams, "fit")
    x, y = map(np.array, json.loads(stage.input(Path("data/train.json")).read_bytes()).values())
    saved = SavedState(stage.name, stage.fingerprint(np.__version__))
    begun = json.dumps([0, ["step,loss"], start(x, y, params).tolist()])
    first, curve, weights = json.loads(saved.read() or begun)
    print(f"fit: begins at step {first}")
    weights = np.array(weights)
    due = time.monotonic() + SAVE_SECONDS
    for step in progress(range(first, params.steps), desc="fit", initial=first, total=params.steps):
        if step % 100 == 0:
            curve.append(f"{step},{loss(weights, x, y)}")
        weights = descend(weights, x, y, params, step)
        if time.monotonic() > due:
            saved.write(json.dumps([step + 1, curve, weights.tolist()]).encode())
            due = time.monotonic() + SAVE_SECONDS
    stage.write(Path("metrics/fit/loss.csv"), "\n".join([*curve, ""]).encode())
    stage.write_json(MODEL, {"weights": weights.tolist()})
    saved.write(json.dumps([params.steps, curve, weights.tolist()]).encode(), [MODEL])


if __name__ == "__main__":
    run_stage("fit", main)
