"""Hold out wines for the test, and standardise all by the rest."""

from pathlib import Path

import numpy as np
from pydantic import Field, NonNegativeInt
from sklearn.datasets import load_wine

from exact_stages import Section, Stage, run_stage


class SplitParams(Section):
    """How to split."""

    test: float = Field(gt=0, lt=1)
    seed: NonNegativeInt


def main(stage: Stage) -> None:
    """Write the features, a constant 1 among them, and the classes of both sets."""
    params = stage.params(SplitParams, "split")
    features, labels = load_wine(return_X_y=True)
    order = np.random.default_rng(params.seed).permutation(len(labels))
    test, train = np.split(order, [round(params.test * len(order))])
    features = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    features = np.column_stack([features, np.ones(len(features))])
    for name, rows in (("test", test), ("train", train)):
        stage.write_json(Path(f"data/{name}.json"), {"x": features[rows].tolist(), "y": labels[rows].tolist()})


if __name__ == "__main__":
    run_stage("split", main)
