"""Compare how often each class is among samples and among real images."""

import math

import torch
from torch import Tensor

from ddpm.scoring.scores import Estimate


def class_mix(samples: Tensor, real: Tensor) -> tuple[Estimate, Estimate]:
    """Measure the share of samples that would need another class for the mix of real images; labels (N,) and (M,).

    It is the total variation distance. Its deviation, and the second estimate, its mean, are those of two sets of one
    mix: of a sum of absolute values of correlated normal differences.
    """
    sets = samples, real
    counts = [each.bincount(minlength=1 + int(torch.cat(sets).max())).double() for each in sets]
    mine, theirs = (each / each.sum() for each in counts)
    pooled = torch.stack(counts).sum(0) / len(torch.cat(sets))
    covariance = (pooled.diag() - pooled.outer(pooled)) * (1 / len(samples) + 1 / len(real))
    deviations = covariance.diag().sqrt()
    scale = deviations.outer(deviations)
    rho = (covariance / scale).nan_to_num(0).clamp(-1, 1)
    spread = 2 / math.pi * scale * (rho * rho.asin() + (1 - rho.square()).sqrt() - 1)
    mean = math.sqrt(2 / math.pi) * float(deviations.sum()) / 2
    error = math.sqrt(float(spread.sum())) / 2
    return Estimate(float((mine - theirs).abs().sum()) / 2, error), Estimate(mean, 0.0)
