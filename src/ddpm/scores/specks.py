"""Find lone specks: a pixel above 0 whose eight neighbours are all 0, as noise leaves them on a black background."""

import torch
from torch import Tensor
from torch.nn import functional as F

BLACK = 0.3  # of the values of real images: fewer are no background


def has_specks(images: Tensor) -> Tensor:
    """Tell which of the grey images, uint8 (N, 1, H, W), have a lone speck, (N,); beyond the border all is 0."""
    lit = (images > 0).float()
    lit_in_square = F.conv2d(lit, torch.ones(1, 1, 3, 3), padding=1)  # with the pixel itself
    return ((lit_in_square == 1) & (lit == 1)).flatten(1).any(1)


def may_have_specks(real: Tensor) -> bool:
    """Tell whether specks mean something beside these real images: grey ones on black."""
    return real.shape[1] == 1 and bool((real == 0).double().mean() >= BLACK)
