"""Muon, an optimizer for weights that are matrices: its updates are orthogonal.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". torch.optim.Muon takes matrices alone,
and multiplies in bfloat16, which is slow where the processor has no such instructions.
"""

from collections.abc import Callable, Iterable, Sequence
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
            updates = []
            for weight in group["params"]:
                momentum = self._momentum(weight)
                momentum.lerp_(weight.grad, 1 - MOMENTUM)
                updates.append(weight.grad.lerp(momentum, MOMENTUM).flatten(1))
            for weight, update in zip(group["params"], orthogonalise(updates), strict=True):
                scale = 0.2 * max(update.shape) ** 0.5
                weight.addcmul_(
                    update.view(weight.shape), torch.tensor(group["lr"] * scale, dtype=torch.float64), value=-1
                )

    def _momentum(self, weight: Tensor) -> Tensor:
        state: dict[str, Any] = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]  # type: ignore[no-any-return]


def orthogonalise(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Nearly U V^T of each one's singular value decomposition U S V^T: singular values come out between 0.7 and 1.2.

    The iteration runs on x x^T alone, which is the smaller matrix, and x is multiplied once, in the end. Those of equal
    size are iterated together, for a GPU is launch-bound here.
    """
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    wide = [x / (x.norm() + 1e-7) for x in wide]  # no singular value exceeds 1
    found = [*matrices]
    for side in {len(x): None for x in wide}:
        places = [place for place, x in enumerate(wide) if len(x) == side]
        products = _iterated(torch.stack([wide[place] @ wide[place].T for place in places]))
        for place, product in zip(places, products, strict=True):
            x = product @ wide[place]
            found[place] = x if x.shape == matrices[place].shape else x.T
    return found


def _iterated(gram: Tensor) -> Tensor:
    """What takes x near U V^T from the left, for each of the matrices x x^T (B, N, N)."""
    a, b, c = NEWTON_SCHULZ
    product = torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype).expand_as(gram)
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)  # a + b gram + c gram^2, which takes x to the next x
        product, gram = factor @ product, factor @ gram @ factor
    return product
