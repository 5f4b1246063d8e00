"""Muon, an optimizer for weights that are matrices: its updates are orthogonal.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". torch.optim.Muon takes matrices alone,
and multiplies in bfloat16, which is slow where the processor has no such instructions.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration, by the same authors
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised: the update of a weight has singular values near 1, all directions alike.

    The update is scaled to the root mean square that one of Adam's has (0.2), so that one learning rate serves both
    (Liu et al. 2025, arXiv:2502.16982, section 2.2).
    """

    def __init__(self, weights: Iterable[Tensor], lr: float) -> None:
        """Take weights of two or more dimensions; as a matrix, one has its first dimension, and all others together."""
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight against its update."""
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self._momentum(weight)
                momentum.lerp_(weight.grad, 1 - MOMENTUM)
                update = orthogonalise(weight.grad.lerp(momentum, MOMENTUM).flatten(1))
                scale = 0.2 * max(update.shape) ** 0.5
                weight.add_(update.view(weight.shape), alpha=-group["lr"] * scale)

    def _momentum(self, weight: Tensor) -> Tensor:
        state: dict[str, Any] = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]  # type: ignore[no-any-return]


def orthogonalise(matrix: Tensor) -> Tensor:
    """Nearly U V^T of the singular value decomposition U S V^T: singular values come out between about 0.7 and 1.2.

    The iteration runs on x x^T alone, which is the smaller matrix, and x is multiplied once, in the end.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)  # no singular value exceeds 1
    gram, product = x @ x.T, torch.eye(len(x), device=x.device, dtype=x.dtype)
    for _ in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)  # a + b gram + c gram^2, which takes x to the next x
        product, gram = factor @ product, factor @ gram @ factor
    x = product @ x
    return x.T if tall else x
