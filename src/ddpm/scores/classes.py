"""Compare how often each class is among samples and among real images."""

import math

import torch
from torch import Tensor

from ddpm.scores.distances import Estimate


def class_mix(samples: Tensor, real: Tensor) -> tuple[Estimate, Estimate]:
    """Measure the share of samples that would need another class for the mix of real images; labels (N,) and (M,).

    It is the total variation distance. Return its mean over two sets of one mix, too. The error is over such sets:
    of a sum of absolute values of correlated normal differences.
    """
    counts = torch.stack([(each == torch.cat([samples, real]).unique()[:, None]).sum(1) for each in (samples, real)])
    mine, theirs = counts / counts.sum(1, keepdim=True).double()
    pooled = counts.sum(0) / counts.sum().double()
    covariance = (pooled.diag() - pooled.outer(pooled)) * (1 / len(samples) + 1 / len(real))
    scale = covariance.diag().sqrt().outer(covariance.diag().sqrt())
    rho = (covariance / scale).nan_to_num(0).clamp(-1, 1)
    spread = 2 / math.pi * scale * (rho * rho.asin() + (1 - rho.square()).sqrt() - 1)
    mean = math.sqrt(2 / math.pi) * float(covariance.diag().sqrt().sum()) / 2
    return Estimate(float((mine - theirs).abs().sum()) / 2, math.sqrt(float(spread.sum())) / 2), Estimate(mean, 0.0)
