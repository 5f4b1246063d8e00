"""Score quality and variety apart: which samples lie among the real features, and which real features are covered.

Kynkaanniemi et al. 2019, "Improved precision and recall metric" (arXiv:1904.06991).
"""

import torch
from torch import Tensor

from ddpm.scores.distances import Estimate, share_of

NEIGHBOURS = 5
CHUNK = 100  # queries at a time: larger distance tables would be allocated each time


def precision_and_recall(real: Tensor, samples: Tensor, k: int = NEIGHBOURS) -> tuple[Estimate, Estimate]:
    """Estimate which share of samples (M, D) lies in a real neighbourhood, and of real features (N, D) in a sample's.

    The neighbourhood of a feature is the ball that reaches its k-th nearest other one. Compare equal counts only.
    """
    real, samples = real.double(), samples.double()  # float32 loses digits of distances far from zero
    real_radii, radii = _radii(real, k), _radii(samples, k)
    among_real, reached = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, radius in zip(samples.split(CHUNK), radii.split(CHUNK), strict=True):
        distances = torch.cdist(rows, real)
        among_real.append((distances <= real_radii).any(1))
        reached |= (distances <= radius[:, None]).any(0)
    recall = float(reached.double().mean())  # its error is that of both sets, and no cheap one was right
    return share_of(torch.cat(among_real)), Estimate(recall, None)


def _radii(features: Tensor, k: int) -> Tensor:
    """Return the distance from each of more than k features (N, D) to its k-th nearest other one, (N,)."""
    tables = (torch.cdist(rows, features) for rows in features.split(CHUNK))
    return torch.cat([each.topk(k + 1, largest=False).values[:, k] for each in tables])  # the first is itself
