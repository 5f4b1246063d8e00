"""Muon: an optimizer for weight matrices, with orthogonal updates.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". torch.optim.Muon takes only 2D weights.
It multiplies in bfloat16, which is slow on processors without bfloat16 instructions.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration, from the same authors
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum: the singular values of an update are near 1, see `orthogonalise`.

    Updates are scaled to the root mean square of Adam's, 0.2, so one learning rate serves both (Liu et al. 2025,
    arXiv:2502.16982, section 2.2).
    """

    def __init__(self, weights: Iterable[Tensor], lr: float) -> None:
        """Take weights of two or more dimensions. As matrices, they are flattened from the second on."""
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight."""
        for group in self.param_groups:
            updates = []
            for weight in group["params"]:
                momentum = self._momentum(weight)
                momentum.lerp_(weight.grad, 1 - MOMENTUM)
                updates.append(weight.grad.lerp(momentum, MOMENTUM).flatten(1))
            for weight, update in zip(group["params"], orthogonalise(updates), strict=True):
                scale = 0.2 * max(update.shape) ** 0.5
                weight.add_(update.view(weight.shape), alpha=-group["lr"] * scale)

    def _momentum(self, weight: Tensor) -> Tensor:
        state: dict[str, Any] = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]  # type: ignore[no-any-return]


def orthogonalise(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return nearly U V^T for the singular value decomposition U S V^T of each matrix.

    The singular values of the result are between 0.68 and 1.2, but for those that were nearly 0: five iterations
    enlarge them at most 485 times. The iteration runs on x x^T, the smaller matrix, and x is multiplied once, at the
    end. Matrices of equal size are iterated together: the GPU is launch-bound here.
    """
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    wide = [x / (x.norm() + 1e-7) for x in wide]  # now no singular value exceeds 1
    found = [*matrices]
    for side in {len(x): None for x in wide}:
        places = [place for place, x in enumerate(wide) if len(x) == side]
        products = _iterated(torch.stack([wide[place] @ wide[place].T for place in places]))
        for place, product in zip(places, products, strict=True):
            x = product @ wide[place]
            found[place] = x if x.shape == matrices[place].shape else x.T
    return found


def _iterated(gram: Tensor) -> Tensor:
    """Return the matrices, (B, N, N), that take x near U V^T from the left, given x x^T (B, N, N)."""
    a, b, c = NEWTON_SCHULZ
    product = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype).expand_as(gram)
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)  # a + b gram + c gram^2; the next x is factor @ x
        product, gram = factor @ product, factor @ gram @ factor
    return product
