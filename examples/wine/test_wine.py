import numpy as np

from wine.softmax import FitParams, descend, loss, start


def test_a_fit_separates_two_classes() -> None:
    x, y = np.array([[-1.0], [1.0]] * 10), np.array([0, 1] * 10)
    weights = start(x, y, params := FitParams(steps=200, batch=8, lr=0.1, seed=0))
    for step in range(params.steps):
        weights = descend(weights, x, y, params, step)
    assert loss(weights, x, y) < 0.1
