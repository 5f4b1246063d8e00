"""Softmax regression, fitted by stochastic gradient descent: x (N, F) are features, y (N) classes, weights (F, C)."""

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from scipy.special import log_softmax, softmax

from exact_stages import Section


class FitParams(Section):
    """How to fit."""

    steps: PositiveInt
    batch: PositiveInt
    lr: PositiveFloat
    seed: NonNegativeInt


def start(x: np.ndarray, y: np.ndarray, params: FitParams) -> np.ndarray:
    """Return the weights before the first step."""
    return np.zeros((x.shape[1], y.max() + 1))


def logits(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the logits (N, C) of the classes."""
    return x @ weights


def loss(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean negative log-likelihood of the classes."""
    return float(-log_softmax(logits(weights, x), axis=1)[np.arange(len(y)), y].mean())


def descend(weights: np.ndarray, x: np.ndarray, y: np.ndarray, params: FitParams, step: int) -> np.ndarray:
    """Take one step; its batch depends on seed and step alone, so that a run can continue at any step."""
    rows = np.random.default_rng([params.seed, step]).integers(len(y), size=params.batch)
    error = softmax(logits(weights, x[rows]), axis=1) - np.eye(weights.shape[1])[y[rows]]
    return weights - params.lr * x[rows].T @ error / params.batch
